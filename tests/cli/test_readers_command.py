"""`cloudseg readers`, `backfill`, `changes` and `masks --as-of`: what they print and how they end."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudseg.catalog import model_rows
from cloudseg.runtime import open_runtime
from tests.catalog import rows

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(runtime_env: Path) -> None:
    """Fill the catalog: w-1 is the champion, w-2 was it before; each has a mask of scene 1."""
    catalog = open_runtime().catalog
    rows.fill(catalog)


def test_switch_show_and_back(run: Run, home: None):
    code, out, _ = run("readers", "show")
    assert (code, "newest" in out, "w-1" in out) == (0, True, True)
    code, out, _ = run("readers", "switch", "v2", "--hold", "--reason", "the report of 2026", "--dry-run", "--json")
    assert json.loads(out)["pending"][0]["weights_id"] == "w-2"
    assert json.loads(run("readers", "show", "--json")[1])["history"] == [], "a dry run writes nothing"
    code, out, _ = run("readers", "switch", "v2", "--hold", "--reason", "the report of 2026", "--actor", "ada")
    assert (code, "the report of 2026" in out, "ada" in out) == (0, True, True)
    shown = json.loads(run("readers", "show", "--json")[1])
    assert (shown["mode"], shown["weights_id"], shown["model_version"], shown["masks"]) == ("hold", "w-2", 2, 1)
    assert run("readers", "back", "1", "--reason", "enough")[0] == 0
    again = json.loads(run("readers", "back", "1", "--reason", "enough", "--json")[1])
    assert (again["mode"], again["weights_id"], len(again["history"])) == ("newest", "w-1", 2)


def test_a_date_to_come_is_pending(run: Run, home: None):
    record = json.loads(run("readers", "switch", "w-2", "--at", "2100-01-01T00:00:00Z", "--reason", "r", "--json")[1])
    assert (record["weights_id"], record["mode"], record["sequence"]) == ("w-1", "newest", None)
    assert [entry["weights_id"] for entry in record["pending"]] == ["w-2"]
    then = json.loads(run("readers", "show", "--as-of", "2100-01-01T00:00:00Z", "--json")[1])
    assert (then["weights_id"], then["since"]) == ("w-2", "2100-01-01T00:00:00Z")


def test_masks_as_of_and_who_follows(run: Run, home: None):
    masks = json.loads(run("masks", "--json")[1])["masks"]
    found = {mask["mask_id"]: (mask["predecessor"], mask["successor"], mask["current"]) for mask in masks}
    assert found == {"mk-1": (None, "mk-2", True), "mk-2": ("mk-1", None, False)}
    then = json.loads(run("masks", "--as-of", rows.promotion(1, of=2).created_at.isoformat(), "--json")[1])
    assert [mask["mask_id"] for mask in then["masks"]] == ["mk-2"]
    assert run("masks", "--as-of", "yesterday")[0] == 2
    assert run("masks", "--as-of", "2026-01-01T00:00:00Z", "--weights", "w-1")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("readers", "switch", "v9", "--reason", "r"), 2, "no such weights"),
        (("readers", "switch", "newest", "--hold", "--reason", "r"), 2, "changes by itself"),
        (("readers", "switch", "v2", "--at", "2020-01-01T00:00:00Z", "--reason", "r"), 2, "in the past"),
        (("readers", "back", "--reason", "r"), 4, "nothing to go back to"),
        (("backfill", "--night", "a/b"), 2, "not a name of a night"),
        (("changes", "v1", "v1", "--out", "new"), 2, "does not differ from itself"),
    ],
)
def test_errors_are_one_line(run: Run, home: None, arguments: tuple[str, ...], code: int, words: str):
    found, _, err = run(*arguments)
    assert found == code
    assert words in err
    assert "Traceback" not in err


def test_readers_lose_no_scene_unasked(run: Run, home: None):
    with open_runtime().catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(3, of=2, by=1))
    code, _, err = run("readers", "switch", "v2", "--reason", "r")
    assert code == 4
    assert "1 of 2 scenes that they see have no mask of it" in err
    assert "--incomplete" in err
    assert run("readers", "switch", "v2", "--incomplete", "--reason", "r")[0] == 0
