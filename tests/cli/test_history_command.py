"""`cloudseg champion` and `history`, lists with filters, and names in place of ids."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from cloudseg.catalog import scene_rows, tables
from cloudseg.catalog.session import insert
from cloudseg.records import Removal, RetiredSnapshot
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import decline, promote, request_approval, rollback
from tests.catalog import rows
from tests.stages.test_decisions import challenger
from tests.stages.test_plans import add_label, add_scene, add_snapshot, add_weights, make_champion

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runtime(runtime_env: Path) -> Runtime:
    return open_runtime()


@pytest.fixture
def filled(runtime: Runtime) -> Runtime:
    """Return a catalog where w-1, version 1, is the champion; `rows.fill` adds the rest."""
    rows.fill(runtime.catalog)
    return runtime


def read(run: Run, *arguments: str) -> list[dict[str, object]]:
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)[arguments[0]]


def test_the_history_says_who_did_what_and_why(run: Run, runtime: Runtime):
    first = add_weights(runtime, data=b"first")
    make_champion(runtime, first)
    second = challenger(runtime, champion_id=first.weights_id)
    request_approval(second.weights_id, actor="retrain", reason="the night")
    assert read(run, "models")[0]["decision"] == "asked"
    promote("v2", actor="ada", reason="the report looks sane")
    assert read(run, "models")[0]["decision"] == "approved"
    rollback("v2", actor="bob", reason="clouds over snow")
    third = challenger(runtime, champion_id=first.weights_id, outcome="HOLD", name="b")
    decline(third.weights_id, actor="eve", reason="too few places")
    history = read(run, "history")
    assert [(row["what"], row["version"], row["replaces_version"], row["actor"]) for row in history] == [
        ("declined", 3, None, "eve"),
        ("rolled back", 1, 2, "bob"),
        ("approved", 2, 1, "ada"),
        ("approval requested", 2, None, "retrain"),
        ("promoted", 1, None, "test"),
        ("held by the gate", 3, None, "the gate"),
    ]
    assert [row["verdict"] for row in history] == ["HOLD", None, "PROMOTE", "PROMOTE", None, "HOLD"]
    assert read(run, "history", "--limit", "2") == history[:2]
    promote("v2", actor="ada", reason="once more")
    newest = read(run, "history", "--limit", "1")
    assert [(row["what"], row["actor"]) for row in newest] == [("promoted", "ada")], "the request was answered before"
    out = run("history")[1]
    assert [word for word in ("clouds over snow", "too few places", "bob") if word not in out] == []


def test_the_champions_card(run: Run, filled: Runtime):
    metrics = {"iou": 0.81234, "iou_bounds": [0.7, 0.9]}
    with filled.catalog.begin() as db:
        db.execute(update(tables.evaluation).values(metrics=metrics))
    code, out, _ = run("champion")
    assert code == 0
    words = ["v1  w-1", "approved by test", "masks", "0.812, 90 % interval 0.700 to 0.900", "run run-1"]
    assert [word for word in [*words, "1 made, 1 waiting"] if word not in out] == []
    card = json.loads(run("champion", "--json")[1])
    assert (card["held_out_iou"], card["iou_lower"], card["iou_upper"]) == (0.81234, 0.7, 0.9)
    assert card["line"]["snapshot_id"] == "sn-1"


def test_there_may_be_no_champion(run: Run, runtime: Runtime):
    code, _, err = run("champion")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no champion yet" in err
    assert run("history")[1].strip() == "no decision yet"
    for dry in ((), ("--dry-run",)):
        code, _, err = run("rollback", "--reason", "test", *dry)
        assert (code, "there is no champion to roll back" in err) == (4, True)


def test_the_champion_is_listed_behind_newer_weights(run: Run, runtime: Runtime):
    make_champion(runtime, add_weights(runtime, data=b"old"))
    for number in range(4):
        add_weights(runtime, data=f"{number}".encode())
    assert [(row["version"], row["alias"]) for row in read(run, "models", "--limit", "2")] == [
        (5, None),
        (4, None),
        (1, "champion"),
    ]
    assert len(read(run, "models", "--limit", "5")) == 5


def test_lists_are_filtered(run: Run, filled: Runtime):
    with filled.catalog.begin() as db:
        scene = scene_rows.get_scene(db, "sc-" + "1".zfill(20))
        other = rows.scene(3, name="other_3", place="block:3", acquired_at=rows.START + timedelta(days=700))
        scene_rows.add_scene(db, other)
        scene_rows.add_scene(db, rows.scene(4, name="otherX3", place="block_3"))
    assert [row["name"] for row in read(run, "scenes", "--name", "other*")] == ["otherX3", "other_3"]
    assert [row["name"] for row in read(run, "scenes", "--name", "other_3")] == ["other_3"], "_ is no wildcard"
    assert [row["name"] for row in read(run, "scenes", "--name", "OTHER*")] == []
    assert [row["place"] for row in read(run, "scenes", "--place", "block:3")] == ["block:3"]
    year = (rows.START + timedelta(days=700)).year
    assert [row["name"] for row in read(run, "scenes", "--datetime", f"{year}/..")] == ["other_3"]
    masks = read(run, "masks")
    cloud = sorted(float(str(row["cloud_fraction"])) for row in masks)
    assert len(read(run, "masks", "--name", scene.name)) == len(masks)
    assert read(run, "masks", "--place", "block:3") == []
    assert len(read(run, "masks", "--min-cloud", str(cloud[0]))) == len(masks)
    assert read(run, "masks", "--max-cloud", str(cloud[0] / 2)) == []
    assert len(read(run, "masks", "--as-of", "2999-01-01T00:00:00Z", "--name", scene.name)) == 1
    assert [row["mask_id"] for row in read(run, "masks", "--weights", "v2")] == ["mk-2"]
    assert run("scenes", "--datetime", "yesterday")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "scene_9"), "no such scene"),
        (("predict", "sc-" + "9" * 20), "no such scene"),
        (("lineage", "mk-"), "several masks begin like this"),
        (("promote", "1"), "Did you mean v1?"),
        (("evaluate", "chanpion"), "Did you mean champion?"),
        (("rollback", "v77", "--reason", "test"), "no such weights"),
        (("changes", "v1", "v3", "--out", "/nowhere"), "no such weights"),
        (("worklist", "--scene", "nowhere"), "no such scene"),
        (("export", "clouds", "/nowhere/x.gpkg", "--mask", "mk-9"), "no such mask"),
        (("export", "clouds", "/nowhere/x.gpkg", "--weights", "v9"), "no such weights"),
        (("labels", "show", "lb-"), "several labels begin like this"),
        (("backfill", "--weights", "v9"), "no such weights"),
    ],
)
def test_an_unknown_name_is_one_line(run: Run, filled: Runtime, arguments: tuple[str, ...], words: str):
    code, _, err = run(*arguments)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == (2, 1)
    assert words in errors[0]
    assert "Traceback" not in err
    assert "device" not in err, "no model was loaded"


def test_a_dry_run_says_whether_a_retraining_is_due(run: Run, runtime: Runtime):
    def would(*options: str) -> str:
        return str(json.loads(run("retrain", "--recipe", "smoke", "--dry-run", "--json", *options)[1])["would"])

    assert would() == "train nothing"
    add_label(runtime, add_scene(runtime, "a"))
    assert would() == "cut a snapshot, train, evaluate, promote by the verdict"
    assert would("--no-auto-promote").endswith("leave a verdict PROMOTE to a person")


def test_a_comparison_names_no_snapshot_that_lost_a_scene(run: Run, runtime: Runtime):
    snapshot = add_snapshot(runtime, "first", [add_label(runtime, scene := add_scene(runtime, "a"))])
    add_weights(runtime, data=b"one", snapshot_id=snapshot.snapshot_id)
    add_weights(runtime, data=b"two", snapshot_id=snapshot.snapshot_id)
    assert f"--snapshot {snapshot.snapshot_id}`, then compare again" in run("compare", "v1", "v2")[2]
    with runtime.catalog.begin() as db:
        insert(db, tables.removal, _removal(scene.scene_id))
        retired = RetiredSnapshot(snapshot_id=snapshot.snapshot_id, removal_id="rm-1", labels=1, created_at=rows.START)
        insert(db, tables.retired_snapshot, retired)
    code, _, err = run("compare", "v1", "v2")
    assert code == 4
    assert "Run `cloudseg evaluate w-" in err
    assert "--snapshot" not in err


def _removal(scene_id: str) -> Removal:
    return Removal(
        removal_id="rm-1",
        scene_id=scene_id,
        source_sha256="0" * 64,
        actor="ann",
        reason="license ended",
        pending=None,
        finished_at=rows.START,
        lifted_at=None,
        lifted_by=None,
        lift_reason=None,
        created_at=rows.START,
    )


def test_removals_are_listed(run: Run, filled: Runtime):
    assert run("remove", "list")[:2] == (0, "no removals\n")
    assert json.loads(run("remove", "list", "--json")[1]) == {"removals": []}
    scene_id = "sc-" + "2".zfill(20)
    with filled.catalog.begin() as db:
        insert(db, tables.removal, _removal(scene_id))
    listed = json.loads(run("remove", "list", "--json")[1])["removals"]
    assert [(row["scene_id"], row["actor"], row["weights"]) for row in listed] == [(scene_id, "ann", [])]
    out = run("remove", "list")[1]
    assert [word for word in (scene_id, "ann", "license ended") if word not in out] == []


def test_beginnings_of_ids_are_found(run: Run, filled: Runtime):
    assert json.loads(run("lineage", "mk-2", "--json")[1])["weights"]["weights_id"] == "w-2"
    label = json.loads(run("labels", "show", "lb-" + "1".zfill(20), "--json")[1])
    assert label["label_id"] == "lb-" + "1".zfill(20)
