"""What is due: labels that are new, scenes without a mask. Rows only; nothing is trained here."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from cloudseg import keys
from cloudseg.catalog import drift_rows, label_rows, model_rows, scene_rows, tables, training_rows
from cloudseg.errors import BadWeights, EmptySplit, InputError, NotInCatalog, PromotionRefused
from cloudseg.recipe import Recipe, load_recipe
from cloudseg.records import Json, Label, LabelState, Run, Scene, SceneBrightness, Snapshot, Verdict, Weights
from cloudseg.registry import promote as promote_in_registry
from cloudseg.registry.due import next_run_id, run_id_of
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import drain, plan_drain, plan_retrain, predict, promote, rollback
from cloudseg.stages.plan import plan_evaluate, plan_masks, plan_promote, plan_rollback, plan_train

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def runtime(runtime_env: Path) -> Runtime:
    return open_runtime()


def add_scene(
    runtime: Runtime, name: str, bands: tuple[str, ...] = ("red", "green", "blue"), *, publishable: bool = True
) -> Scene:
    stored = runtime.store.put(keys.scene(keys.sha256_of(name.encode())), name.encode())
    scene = Scene(
        scene_id=keys.id_from_hash("sc", stored.sha256),
        name=name,
        layout="pairs",
        sensor="unknown",
        radiometry="plain",
        acquired_at=None,
        place=f"block:{name}",
        crs="EPSG:32631",
        transform=[10, 0, 0, 0, -10, 0],
        height=1,
        width=1,
        resolution_m=10.0,
        bands=list(bands),
        footprint_wkb=None,
        min_lon=None,
        min_lat=None,
        max_lon=None,
        max_lat=None,
        valid_fraction=1.0,
        publishable=publishable,
        source_uri="file:///a",
        tags={},
        source_sha256=stored.sha256,
        created_at=NOW,
        **stored.model_dump(),
    )
    with runtime.catalog.begin() as db:
        scene_rows.add_scene(db, scene)
    return scene


def add_label(runtime: Runtime, scene: Scene) -> Label:
    stored = runtime.store.put(keys.label(keys.sha256_of(scene.scene_id.encode())), scene.scene_id.encode())
    label = Label(
        label_id=keys.make_id("lb", scene.scene_id),
        scene_id=scene.scene_id,
        version=1,
        source="test",
        class_mapping={},
        cloud_fraction=0.5,
        labelled_fraction=1.0,
        source_uri="file:///a",
        source_sha256=stored.sha256,
        created_at=NOW,
        **stored.model_dump(),
    )
    with runtime.catalog.begin() as db:
        scene_rows.add_label(db, label)
    return label


def add_snapshot(runtime: Runtime, name: str, labels: list[Label], counts: Json | None = None) -> Snapshot:
    snapshot = Snapshot(
        snapshot_id=keys.make_id("sn", name),
        manifest_key=keys.snapshot_manifest(name),
        manifest_sha256="0" * 64,
        chip_size=32,
        bands=["red"],
        working_resolution_m=None,
        counts=counts or {"held_out": {"chips": 1}},
        created_at=NOW,
    )
    with runtime.catalog.begin() as db:
        training_rows.add_snapshot(db, snapshot, {label.label_id: "train" for label in labels})
    return snapshot


def add_run(runtime: Runtime, snapshot: Snapshot, recipe: Recipe, *, compared: bool, number: int = 0) -> Weights:
    with runtime.catalog.begin() as db:
        run_id = run_id_of(db, snapshot.snapshot_id, recipe, attempt=number)
        training_rows.add_run(
            db,
            Run(
                run_id=run_id,
                snapshot_id=snapshot.snapshot_id,
                recipe_name=recipe.name,
                recipe_hash=recipe.recipe_hash,
                recipe=recipe.model_dump(mode="json"),
                parent_weights_id=None,
                seed=0,
                status="finished",
                device="cpu",
                device_reason="test",
                error=None,
                created_at=NOW,
                finished_at=NOW,
            ),
        )
    weights = add_weights(runtime, run_id, snapshot.snapshot_id)
    if compared:
        add_verdict(runtime, weights)
    return weights


def add_weights(
    runtime: Runtime, run_id: str | None = None, snapshot_id: str | None = None, data: bytes = b"weights"
) -> Weights:
    content = (run_id or "").encode() + data
    stored = runtime.store.put(keys.weights(keys.sha256_of(content)), content)
    weights = Weights(
        weights_id=keys.id_from_hash("w", stored.sha256),
        version=0,
        run_id=run_id,
        snapshot_id=snapshot_id,
        architecture="SimpleUNet",
        companions={},
        metadata={"threshold": 0.5, "bands": ["red", "green", "blue"]},
        created_at=NOW,
        **stored.model_dump(),
    )
    with runtime.catalog.begin() as db:
        return model_rows.add_weights(db, weights)


def add_verdict(runtime: Runtime, weights: Weights) -> None:
    verdict_id = keys.make_id("ve", weights.weights_id)
    body = {"reasons": ["a test"]}
    with runtime.catalog.begin() as db:
        model_rows.add_verdict(
            db,
            Verdict(
                verdict_id=verdict_id,
                challenger_id=weights.weights_id,
                champion_id=None,
                outcome="HOLD",
                body=body,
                created_at=NOW,
            ),
        )


def make_champion(runtime: Runtime, weights: Weights, *, replaces: str | None = None) -> None:
    promote_in_registry(
        runtime.store,
        runtime.catalog,
        weights.weights_id,
        expected_champion=replaces,
        verdict_id=None,
        actor="test",
        reason="test",
    )


def test_nothing_is_due_without_labels(runtime: Runtime):
    assert plan_retrain("smoke") == {"skip": "no scene in the catalog has a label yet", "new_labels": 0, "drift": None}
    assert plan_retrain("smoke", force=True)["skip"] is None


def test_due_until_a_run_of_this_recipe_was_compared_on_all_labels(runtime: Runtime):
    smoke = load_recipe("smoke")
    first = add_label(runtime, add_scene(runtime, "a"))
    assert plan_retrain("smoke") == {"skip": None, "new_labels": 1, "drift": None}

    snapshot = add_snapshot(runtime, "first", [first])
    add_run(runtime, snapshot, smoke.with_minutes(7), compared=False)
    assert plan_retrain("smoke")["skip"] is None, "trained but not compared: it was killed in between"

    add_run(runtime, snapshot, smoke.with_minutes(7), compared=True, number=1)
    assert plan_retrain("smoke")["new_labels"] == 0
    assert "force" in str(plan_retrain("smoke")["skip"])
    assert plan_retrain("baseline")["skip"] is None, "another recipe was not trained on them"

    add_run(runtime, snapshot, load_recipe("baseline").model_copy(update={"name": "seed"}), compared=True)
    assert plan_retrain("baseline")["skip"], "a run under the former name counts"

    add_label(runtime, add_scene(runtime, "b"))
    assert plan_retrain("smoke") == {"skip": None, "new_labels": 1, "drift": None}
    assert "2 are needed" in str(plan_retrain("smoke", min_new_labels=2)["skip"])
    assert plan_retrain("smoke", snapshot_id=snapshot.snapshot_id)["skip"], "the label gave no new chip"


def decide(runtime: Runtime, label: Label, state: LabelState):
    with runtime.catalog.begin() as db:
        label_rows.add_event(db, label, state, actor="test", reason="test")


def test_a_withdrawn_label_is_a_change_until_it_was_trained_without(runtime: Runtime):
    smoke = load_recipe("smoke").with_minutes(None)
    first, second = (add_label(runtime, add_scene(runtime, name)) for name in "ab")
    before, after = add_snapshot(runtime, "before", [first]), add_snapshot(runtime, "after", [first, second])
    add_run(runtime, before, smoke, compared=True)
    newer = add_run(runtime, after, smoke, compared=True)
    with runtime.catalog.begin() as db:
        later = tables.run.update().where(tables.run.c.run_id == newer.run_id)
        db.execute(later.values(created_at=NOW + timedelta(days=1)))
    assert plan_retrain("smoke")["new_labels"] == 0
    decide(runtime, second, "withdrawn")
    assert plan_retrain("smoke") == {"skip": None, "new_labels": 1, "drift": None}
    assert "again" in str(plan_retrain("smoke", snapshot_id=before.snapshot_id)["skip"]), "not every night anew"
    make_champion(runtime, newer)
    assert plan_retrain("smoke", snapshot_id=before.snapshot_id)["skip"] is None, "not compared with this champion"
    decide(runtime, second, "accepted")
    assert plan_retrain("smoke")["new_labels"] == 0


def test_proposed_labels_are_no_change_and_are_mentioned(runtime: Runtime):
    scene = add_scene(runtime, "a")
    stored = runtime.store.put(keys.label("0" * 64), b"label")
    label = add_label(runtime, add_scene(runtime, "b")).model_copy(
        update={"label_id": "lb-proposed", "scene_id": scene.scene_id, **stored.model_dump()}
    )
    with runtime.catalog.begin() as db:
        scene_rows.add_label(db, label, state="proposed")
    assert plan_retrain("smoke") == {"skip": None, "new_labels": 1, "drift": None}
    reason = str(plan_retrain("smoke", min_new_labels=2)["skip"])
    assert reason.endswith("; 1 label waits: cloudseg labels list --state proposed")
    decide(runtime, label, "accepted")
    assert plan_retrain("smoke", min_new_labels=2) == {"skip": None, "new_labels": 2, "drift": None}


def test_a_snapshot_without_held_out_places_is_refused_before_the_training(runtime: Runtime):
    counts = {split: {"chips": number} for split, number in (("train", 9), ("validation", 2), ("held_out", 0))}
    snapshot = add_snapshot(runtime, "first", [add_label(runtime, add_scene(runtime, "a"))], counts=counts)
    with pytest.raises(EmptySplit, match=r"held_out split.*train 9 chips, validation 2 chips, held_out 0 chips"):
        plan_retrain("smoke", snapshot_id=snapshot.snapshot_id, force=True)


def test_a_run_whose_recipe_cannot_be_read_any_more_is_another_recipe(runtime: Runtime):
    label = add_label(runtime, add_scene(runtime, "a"))
    weights = add_run(runtime, add_snapshot(runtime, "first", [label]), load_recipe("smoke"), compared=True)
    assert plan_retrain("smoke")["skip"]
    with runtime.catalog.begin() as db:
        reworded = training_rows.get_run(db, str(weights.run_id)).recipe | {"description": "in other words"}
        db.execute(tables.run.update().values(recipe=reworded))
    assert plan_retrain("smoke")["skip"], "a release that rewords a description makes no other recipe"
    with runtime.catalog.begin() as db:
        older = reworded | {"a_value_that_is_gone": 1}
        db.execute(tables.run.update().values(recipe=older))
    assert plan_retrain("smoke")["skip"] is None


def test_workers_are_planned_for_scenes_that_can_have_a_mask(runtime: Runtime):
    assert plan_drain(2) == [], "no champion yet"
    wanted = [add_scene(runtime, name) for name in "abc"]
    add_scene(runtime, "without-blue", ("red", "green", "nir"))
    add_scene(runtime, "without-place", publishable=False)
    weights = add_weights(runtime)
    make_champion(runtime, weights)
    workers = plan_drain(2)
    assert [worker["name"] for worker in workers] == ["worker 1 of 2", "worker 2 of 2"]
    assert plan_drain(2, weights_id=weights.weights_id) == workers
    assert len(plan_drain(1000)) == 3, "not more than scenes"
    assert plan_masks(new=True)["would"] == "mask"
    assert sorted(plan_masks(new=True)["scene_ids"]) == sorted(scene.scene_id for scene in wanted)
    with pytest.raises(InputError, match="at least one"):
        plan_drain(0)


def test_the_dry_run_of_a_prediction_says_that_nothing_is_left(runtime: Runtime):
    make_champion(runtime, add_weights(runtime))
    assert plan_masks(new=True)["would"].startswith("nothing")


def test_weights_of_a_band_that_no_scene_can_have_are_named_instead_of_finding_nothing(runtime: Runtime):
    """The band `polar` of earlier releases is such a band."""
    add_scene(runtime, "a")
    weights = add_weights(runtime)
    with runtime.catalog.begin() as db:
        bands = {"threshold": 0.5, "bands": ["red", "green", "blue", "polar"]}
        db.execute(tables.weights.update().values(metadata=bands))
    for call in (partial(plan_drain, 2), drain, partial(predict, new=True)):
        with pytest.raises(BadWeights, match=r"polar.*cloudseg rollback"):
            call(weights_id=weights.weights_id)


def test_predict_wants_either_scenes_or_all_new_ones(runtime: Runtime):
    with pytest.raises(InputError, match="neither"):
        predict()
    with pytest.raises(InputError, match="both"):
        predict(["sc-1"], new=True)
    with pytest.raises(NotInCatalog, match="champion"):
        predict(new=True)


def test_dry_runs_return_what_would_be_done(runtime: Runtime):
    snapshot = add_snapshot(runtime, "first", [add_label(runtime, add_scene(runtime, "a"))])
    assert plan_train(snapshot.snapshot_id, recipe="smoke")["would"] == "begin"
    weights = add_run(runtime, snapshot, load_recipe("smoke"), compared=True)
    assert "finished" in plan_train(snapshot.snapshot_id, recipe="smoke")["would"]
    assert plan_evaluate(weights.weights_id)["would"] == "evaluate"
    assert plan_promote(weights.weights_id)["champion_id"] is None
    with pytest.raises(PromotionRefused):
        plan_rollback()
    make_champion(runtime, weights)
    with pytest.raises(PromotionRefused, match="no earlier champion"):
        plan_rollback()
    assert "nothing" in plan_promote(weights.weights_id)["would"]


def test_imported_weights_need_some_snapshot_to_be_evaluated_on(runtime: Runtime):
    weights = add_weights(runtime)
    with pytest.raises(NotInCatalog, match="cloudseg snapshot"):
        plan_evaluate(weights.weights_id)
    snapshot = add_snapshot(runtime, "newest", [])
    assert plan_evaluate(weights.weights_id)["snapshot_id"] == snapshot.snapshot_id


def test_force_needs_a_reason(runtime: Runtime):
    snapshot = add_snapshot(runtime, "first", [])
    weights = add_weights(runtime, snapshot_id=snapshot.snapshot_id)
    with pytest.raises(PromotionRefused, match="reason"):
        promote(weights.weights_id, force=True)


def test_the_dry_run_of_a_rollback_names_the_earlier_champion(runtime: Runtime):
    first, second = (add_weights(runtime, data=data) for data in (b"first", b"second"))
    make_champion(runtime, first)
    make_champion(runtime, second, replaces=first.weights_id)
    assert plan_rollback() == plan_rollback(second.weights_id)
    assert plan_rollback() == {
        "would": "roll back",
        "champion_id": second.weights_id,
        "champion_version": second.version,
        "earlier_id": first.weights_id,
        "earlier_version": first.version,
    }
    assert plan_rollback(f"v{second.version}") == plan_rollback(second.weights_id[:8]) == plan_rollback("champion")
    with pytest.raises(PromotionRefused, match="another champion"):
        plan_rollback(first.weights_id)
    assert rollback(second.weights_id, reason="test").weights_id == first.weights_id
    assert plan_rollback(second.weights_id)["would"].startswith("nothing")


@pytest.mark.parametrize("champions", [0, 1])
def test_a_rollback_without_history_is_refused_in_the_words_of_its_dry_run(runtime: Runtime, champions: int):
    for _ in range(champions):
        make_champion(runtime, add_weights(runtime))
    with pytest.raises(PromotionRefused) as real:
        rollback(actor="test", reason="test")
    with pytest.raises(PromotionRefused) as planned:
        plan_rollback()
    assert str(real.value) == str(planned.value)
    assert ("no earlier champion" if champions else "no champion to roll back") in str(real.value)


def test_a_warm_start_belongs_to_its_parent(runtime: Runtime):
    nightly, smoke = load_recipe("nightly"), load_recipe("smoke")
    with runtime.catalog.read() as db:
        before = run_id_of(db, "sn-1", nightly), run_id_of(db, "sn-1", smoke)
        assert run_id_of(db, "sn-1", nightly) == before[0]
        assert run_id_of(db, "sn-2", nightly) != before[0]
        assert run_id_of(db, "sn-1", nightly, attempt=1) != before[0]
    make_champion(runtime, add_weights(runtime))
    with runtime.catalog.read() as db:
        assert run_id_of(db, "sn-1", nightly) != before[0]
        assert run_id_of(db, "sn-1", smoke) == before[1]


def next_run_of(runtime: Runtime, snapshot_id: str, recipe: Recipe, *, force: bool) -> str:
    with runtime.catalog.read() as db:
        return next_run_id(db, snapshot_id, recipe, force=force)


def test_a_forced_retraining_is_another_attempt_and_a_killed_one_resumes(runtime: Runtime):
    smoke = load_recipe("smoke")
    snapshot = add_snapshot(runtime, "first", [])
    first = next_run_of(runtime, snapshot.snapshot_id, smoke, force=True)
    assert first == next_run_of(runtime, snapshot.snapshot_id, smoke, force=False)
    weights = add_run(runtime, snapshot, smoke, compared=False)
    assert weights.run_id == first
    assert next_run_of(runtime, snapshot.snapshot_id, smoke, force=True) == first, "not compared yet: resumed"
    add_verdict(runtime, weights)
    second = next_run_of(runtime, snapshot.snapshot_id, smoke, force=True)
    assert second != first
    assert next_run_of(runtime, snapshot.snapshot_id, smoke, force=False) == first
    add_run(runtime, snapshot, smoke, compared=True, number=1)
    assert next_run_of(runtime, snapshot.snapshot_id, smoke, force=True) not in (first, second)


def drifting(tmp_path: Path) -> tuple[Recipe, str]:
    """Return the recipe smoke, asking for a retraining on drift, and its file."""
    text = (Path(__file__).parents[2] / "cloudseg" / "recipes" / "smoke.toml").read_text()
    file = tmp_path / "drifting.toml"
    file.write_text(f"{text}\n[retrain]\ndrift_psi = 0.25\n")
    return load_recipe(str(file)), str(file)


def test_a_recipe_may_ask_for_a_retraining_when_drift_is_past_a_limit(runtime: Runtime, tmp_path: Path):
    recipe, file = drifting(tmp_path)
    assert recipe.recipe_hash == load_recipe("smoke").recipe_hash, "when to retrain changes no id"
    scenes = [add_scene(runtime, f"trained {number}") for number in range(60)]
    snapshot = add_snapshot(runtime, "drift", [add_label(runtime, scene) for scene in scenes])
    weights = add_run(runtime, snapshot, recipe, compared=True)
    who = {"actor": "test", "reason": "first"}
    promote_in_registry(
        runtime.store, runtime.catalog, weights.weights_id, expected_champion=None, verdict_id=None, **who
    )
    arrived = [add_scene(runtime, f"new {number}") for number in range(30)]
    with runtime.catalog.begin() as db:
        for number, scene in enumerate(scenes):
            drift_rows.add_brightness(
                db, SceneBrightness(scene_id=scene.scene_id, reflectance=0.1 + number / 600, created_at=NOW)
            )
        for number, scene in enumerate(arrived):
            drift_rows.add_brightness(
                db, SceneBrightness(scene_id=scene.scene_id, reflectance=0.5 + number / 600, created_at=NOW)
            )
        late = tables.scene.update().where(tables.scene.c.name.startswith("new"))
        db.execute(late.values(created_at=NOW + timedelta(weeks=2)))
    assert plan_retrain("smoke")["skip"], "the shipped recipes do not ask for it"
    plan = plan_retrain(file)
    assert (plan["skip"], plan["new_labels"]) == (None, 0)
    assert str(plan["drift"]).startswith("brightness of the scenes of unknown in 2026-W25 is higher than in training")
    assert plan_retrain(file, snapshot_id=snapshot.snapshot_id)["skip"] is None, "although no chip is new"
    with runtime.catalog.begin() as db:
        assert next_run_id(db, snapshot.snapshot_id, recipe, force=True) != weights.run_id
        answered = tables.run.update().values(created_at=NOW + timedelta(weeks=2, days=1))
        db.execute(answered)
    plan = plan_retrain(file)
    assert (bool(plan["skip"]), plan["drift"]) == (True, None), "a week counts once"
