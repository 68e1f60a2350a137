"""`cloudseg labels`: what waits is listed, looked at and decided; everything that shows labels or masks follows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cloudseg import stages
from cloudseg.catalog import Catalog, model_rows
from cloudseg.runtime import open_runtime
from tests.catalog import rows
from tests.ingest.tiles import random_dn, write

Run = Callable[..., tuple[int, str, str]]


def save(folder: Path, name: str, pixels: np.ndarray, source: str = "analyst:ada") -> None:
    tags = {"LABEL_SOURCE": source}
    write(folder / "labels" / f"{name}.tif", pixels[np.newaxis], names=["label"], nodata=255, tags=tags)


def whole(cloud_rows: int) -> np.ndarray:
    """Return a label of 48 × 48 pixels whose first rows are cloud."""
    label = np.zeros((48, 48), np.uint8)
    label[:cloud_rows] = 1
    return label


def partial() -> np.ndarray:
    """Return an opinion on 30 pixels of the first ten rows: they are clear."""
    label = np.full((48, 48), 255, np.uint8)
    label[2:5, 20:30] = 0
    return label


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with two labeled scenes and a partial correction of `a` that waits; it is copied for each test."""
    folder = tmp_path_factory.mktemp("prepared")
    for seed, name in enumerate("ab"):
        write(folder / "inbox" / "images" / f"{name}.tif", random_dn(seed=seed))
        save(folder / "inbox", name, whole(10), source="catalogue")
    save(folder / "corrections", "a", partial())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDSEG_HOME", str(folder / "home"))
        stages.ingest(str(folder / "inbox"))
        assert len(stages.ingest(str(folder / "corrections")).proposed) == 1
    return folder


@pytest.fixture
def inbox(run: Run, runtime_env: Path, prepared: Path) -> Path:
    """Copy the prepared home for this test and return its inbox."""
    shutil.copytree(prepared / "home", runtime_env)
    return prepared / "inbox"


def ask(run: Run, *arguments: str) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def listed(run: Run, *options: str) -> list[tuple[str, int, str]]:
    """Return scene, version and state of the labels that a list shows."""
    return sorted(
        (row["scene"], row["version"], row["state"]) for row in ask(run, "labels", "list", *options)["labels"]
    )


def id_of(run: Run, scene: str, version: int) -> str:
    (found,) = [
        row["label_id"] for row in ask(run, "labels", "list", "--scene", scene)["labels"] if row["version"] == version
    ]
    return str(found)


def publish_mask(scene: str) -> str:
    catalog: Catalog = open_runtime().catalog
    (scene_id,) = [found["scene_id"] for found in stages.scenes(limit=None) if found["name"] == scene]
    with catalog.begin() as db:
        model_rows.add_weights(db, rows.weights(1))
        mask = rows.mask(1, of=1, by=1).model_copy(update={"scene_id": scene_id})
        model_rows.add_mask(db, mask)
    return mask.mask_id


def test_labels_are_listed_by_state_scene_and_source(run: Run, inbox: Path) -> None:
    assert listed(run) == [("a", 1, "accepted"), ("a", 2, "proposed"), ("b", 1, "accepted")]
    assert listed(run, "--state", "proposed") == [("a", 2, "proposed")]
    assert listed(run, "--scene", "b") == [("b", 1, "accepted")]
    assert listed(run, "--source", "analyst:ada") == [("a", 2, "proposed")]
    assert listed(run, "--limit", "1") == [("a", 2, "proposed")], "the newest decision first"
    code, out, _ = run("labels", "list", "--state", "proposed")
    assert (code, "version" in out, "proposed" in out) == (0, True, True)
    code, _, err = run("labels", "list", "--scene", "nowhere")
    assert code == 2
    assert "cloudseg scenes" in err


def test_what_waits_is_mentioned_wherever_somebody_looks(run: Run, inbox: Path) -> None:
    waiting = "1 label waits: cloudseg labels list --state proposed"
    assert waiting in ask(run, "doctor")["checks"][1]["detail"]
    assert run("labels", "reject", "a", "--reason", "no")[0] == 0
    assert waiting not in ask(run, "doctor")["checks"][1]["detail"]


def test_an_ingest_prints_what_it_says_about_labels(run: Run, inbox: Path) -> None:
    code, out, _ = run("ingest", str(inbox.parent / "corrections"))
    assert code == 0
    assert f"\nlabel {id_of(run, 'a', 2)} is known: version 2 of a, which waits for a decision: cloudseg" in out


def test_one_label_is_shown_with_its_history(run: Run, inbox: Path) -> None:
    label_id = id_of(run, "a", 2)
    ask(run, "labels", "accept", label_id, "--actor", "grace", "--reason", "looks right")
    ask(run, "labels", "withdraw", label_id, "--actor", "ada", "--reason", "snow")
    found = ask(run, "labels", "show", label_id)
    assert [(e["sequence"], e["state"], e["actor"], e["reason"]) for e in found["events"][1:]] == [
        (2, "accepted", "grace", "looks right"),
        (3, "withdrawn", "ada", "snow"),
    ]
    assert (found["state"], found["corrects_mask_id"], found["snapshots"]) == ("withdrawn", None, [])
    assert found["in_use"] == [{"label_id": id_of(run, "a", 1), "version": 1}]
    code, out, _ = run("labels", "show", label_id)
    assert code == 0
    assert f"in use for this scene: version 1 ({id_of(run, 'a', 1)})" in out
    assert "looks right" in out
    assert run("labels", "show", "lb-unknown")[0] == 2


def test_a_difference_is_drawn_and_counted(run: Run, inbox: Path, tmp_path: Path) -> None:
    label_id, file = id_of(run, "a", 2), tmp_path / "diff.png"
    drawn = ask(run, "labels", "diff", label_id, "--out", str(file))
    assert (drawn["changed"], drawn["changed_pixels"]) == ({"cloud to clear": 30}, 30)
    assert (drawn["before"], drawn["after"]) == ([id_of(run, "a", 1)], [id_of(run, "a", 1), label_id])
    with Image.open(file) as picture:
        assert picture.format == "PNG"
    ask(run, "labels", "accept", label_id)
    assert ask(run, "labels", "diff", label_id, "--out", str(file)) == drawn, "the same once it is in use"
    first = ask(run, "labels", "diff", id_of(run, "a", 1), "--out", str(file))
    assert first["changed"] == {"none to clear": 38 * 48, "none to cloud": 480 - 30}, "below the correction"
    code, _, err = run("labels", "diff", label_id, "--out", str(tmp_path / "no" / "diff.png"))
    assert code == 2
    assert "a folder that exists" in err


def test_a_scene_name_chooses_what_waits(run: Run, inbox: Path) -> None:
    label_id = id_of(run, "a", 2)
    done = ask(run, "labels", "accept", "a", "--dry-run")
    assert (done["changed"], done["waiting"]) == ([label_id], 1)
    done = ask(run, "labels", "accept", "a")
    assert (done["changed"], done["unchanged"], done["waiting"]) == ([label_id], [], 0)
    assert done["notes"] == ["a: versions 1, 2 in use"]
    again = ask(run, "labels", "accept", label_id)
    assert (again["changed"], again["unchanged"]) == ([], [label_id])
    code, _, err = run("labels", "accept", "a")
    assert code == 4
    assert "no label of this scene is proposed" in err
    assert f"{label_id} accepted by cli" in err


def test_withdrawing_by_scene_needs_one_accepted_label(run: Run, inbox: Path) -> None:
    ask(run, "labels", "accept", "a")
    code, _, err = run("labels", "withdraw", "a", "--reason", "why not")
    assert code == 2
    assert f"{id_of(run, 'a', 1)} (version 1 of" in err
    assert f"{id_of(run, 'a', 2)} (version 2 of" in err
    done = ask(run, "labels", "withdraw", id_of(run, "a", 2), "--reason", "snow")
    assert done["notes"] == ["a: version 1 in use"]
    done = ask(run, "labels", "withdraw", "a", "--reason", "all wrong")
    back = id_of(run, "a", 2)
    assert done["notes"] == [f"a: no label in use; cloudseg labels accept {back} reinstates version 2"]
    assert ask(run, "labels", "accept", back)["changed"] == [back]


def test_all_of_one_source_or_state_are_decided_together(run: Run, inbox: Path, tmp_path: Path) -> None:
    save(tmp_path / "more", "b", whole(20))
    save(tmp_path / "others", "a", whole(30), source="analyst:eve")
    for folder in ("more", "others"):
        ask(run, "ingest", str(tmp_path / folder))
    assert len(ask(run, "labels", "accept", "--source", "analyst:ada")["changed"]) == 2
    assert listed(run, "--state", "proposed") == [("a", 3, "proposed")]
    done = ask(run, "labels", "reject", "--state", "proposed", "--reason", "unknown author")
    assert (len(done["changed"]), done["waiting"]) == (1, 0)
    assert len(ask(run, "labels", "withdraw", "--source", "analyst:ada", "--reason", "retired")["changed"]) == 2
    assert listed(run, "--state", "accepted") == [("a", 1, "accepted"), ("b", 1, "accepted")]
    code, _, err = run("labels", "accept", "--source", "analyst:ada")
    assert (code, "no label is proposed" in err) == (4, True)
    back = ask(run, "labels", "accept", "--source", "analyst:ada", "--state", "withdrawn")
    assert len(back["changed"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["accept"], 2, "no label was chosen"),
        (["reject", "a"], 2, "--reason"),
        (["withdraw", "a", "--reason", " "], 2, "Pass --reason"),
        (["reject", "b", "--reason", "x"], 4, "no label of this scene is proposed"),
        (["accept", "sc-unknown"], 2, "no such scene"),
        (["accept", "lb-unknown"], 2, "no such label"),
    ],
)
def test_what_cannot_be_decided_is_refused(run: Run, inbox: Path, arguments: list[str], code: int, words: str) -> None:
    before = listed(run)
    found, _, err = run("labels", *arguments)
    assert (found, words in err) == (code, True), err
    assert listed(run) == before


def test_one_refusal_changes_nothing(run: Run, inbox: Path) -> None:
    code, _, err = run("labels", "reject", id_of(run, "a", 2), id_of(run, "b", 1), "--reason", "x")
    assert code == 4
    assert "the label cannot become rejected (found accepted by ingest file:///" in err
    assert listed(run, "--state", "proposed") == [("a", 2, "proposed")]


def test_a_name_of_two_scenes_is_refused(run: Run, inbox: Path, tmp_path: Path) -> None:
    write(tmp_path / "second" / "images" / "a.tif", random_dn(seed=9))
    save(tmp_path / "second", "a", whole(5))
    ask(run, "ingest", str(tmp_path / "second"))
    code, _, err = run("labels", "withdraw", "a", "--reason", "x")
    assert (code, "of 2 scenes" in err) == (2, True)


def test_a_published_mask_is_disputed_until_the_correction_is_rejected(run: Run, inbox: Path, tmp_path: Path) -> None:
    mask_id = publish_mask("b")
    # The row's time lies before every label, so the label of `b` that is in use came after it.
    assert [(mask["mask_id"], mask["disputed"]) for mask in ask(run, "masks")["masks"]] == [(mask_id, True)]
    ask(run, "labels", "withdraw", "b", "--reason", "only the correction is to count")
    assert not ask(run, "masks")["masks"][0]["disputed"]
    save(tmp_path / "fix", "b", whole(20))
    assert ask(run, "ingest", str(tmp_path / "fix"))["proposed"] == [id_of(run, "b", 2)]
    assert ask(run, "masks")["masks"][0]["disputed"]
    assert ask(run, "lineage", mask_id)["mask"]["disputed"] is True
    assert "disputed: a label corrects it" in run("lineage", mask_id)[1]
    assert "True" in run("masks")[1]
    ask(run, "labels", "reject", "b", "--reason", "the mask is right")
    assert not ask(run, "masks")["masks"][0]["disputed"]
    assert "disputed" not in run("lineage", mask_id)[1]


def test_an_untrusted_inbox_is_a_setting(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSEG_TRUSTED_INBOXES", f"s3://ours {tmp_path / 'trusted'}")
    for seed, folder in enumerate(("trusted", "public")):
        write(tmp_path / folder / "images" / f"{folder}.tif", random_dn(seed=seed))
        save(tmp_path / folder, folder, whole(10))
        ask(run, "ingest", str(tmp_path / folder))
    assert listed(run) == [("public", 1, "proposed"), ("trusted", 1, "accepted")]
