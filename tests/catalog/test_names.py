"""What people type is found on every database: versions, names, beginnings of ids; a typo gets suggestions."""

import pytest
import rows

from cloudseg.catalog import Catalog, model_rows, names, scene_rows
from cloudseg.catalog.names import Kind
from cloudseg.errors import CloudsegError, InputError, NotInCatalog

LONG = "w-0123456789abcdef0123"
OTHER = "w-0123456789abcdef9999"


@pytest.fixture
def found(full_catalog: Catalog) -> Catalog:
    """Return a catalog with two weights whose ids differ late, and scenes with names of letters that LIKE knows."""
    with full_catalog.begin() as db:
        for weights_id, number in ((LONG, 3), (OTHER, 4)):
            model_rows.add_weights(db, rows.weights(number).model_copy(update={"weights_id": weights_id}))
        for number, name in ((7, "wild%_1"), (8, "wildXX1"), (9, "twice"), (10, "twice")):
            scene_rows.add_scene(db, rows.scene(number).model_copy(update={"name": name}))
    return full_catalog


def scene_id(number: int) -> str:
    return f"sc-{number:020d}"


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("weights", "champion", "w-1"),
        ("weights", "v3", LONG),
        ("weights", "w-2", "w-2"),
        ("weights", LONG, LONG),
        ("weights", LONG[:-3], LONG),
        ("scene", "wild%_1", scene_id(7)),
        ("scene", "wildXX1", scene_id(8)),
        ("scene", scene_id(8), scene_id(8)),
        ("mask", "mk-1", "mk-1"),
        ("label", f"lb-{2:020d}", f"lb-{2:020d}"),
        ("run", "run", "run-1"),
        ("snapshot", "sn-", "sn-1"),
        ("verdict", "ve", None),
        ("verdict", "ve-", "ve-1"),
    ],
)
def test_a_name_is_found(found: Catalog, kind: Kind, name: str, wanted: str | None):
    with found.read() as db:
        if wanted is None:  # shorter than what every id begins with
            with pytest.raises(NotInCatalog):
                names.get_id(db, kind, name)
        else:
            assert names.get_id(db, kind, name) == wanted


def test_every_scene_of_a_name_is_found_newest_first(found: Catalog):
    with found.read() as db:
        assert names.list_ids(db, "scene", "twice") == [scene_id(10), scene_id(9)]
        with pytest.raises(
            InputError, match=f"several scenes have this name .*{scene_id(10)}, {scene_id(9)}.*by its id"
        ):
            names.get_id(db, "scene", "twice")


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("weights", LONG[:12], ["several weights begin like this", f"{LONG} (v3)", f"{OTHER} (v4)"]),
        ("weights", "w-", ["several weights begin like this", "w-1 (v1)", "w-2 (v2)"]),
        ("weights", "3", ["no such weights", "Did you mean v3?", "cloudseg models"]),
        ("weights", "chanpion", ["no such weights", "Did you mean champion?"]),
        ("weights", LONG.replace("9", "8"), ["no such weights", LONG]),
        ("weights", "v77", ["no such weights"]),
        ("scene", "WildXX1", ["no such scene", "Did you mean wildXX1"]),
        ("scene", "twise", ["Did you mean twice"]),
        ("scene", "nothing like it", ["no such scene", "`cloudseg scenes` lists"]),
        ("mask", "wildXX1", ["no such mask", "`cloudseg masks` lists"]),
        ("scene", "sc-%", ["no such scene"]),
        ("mask", "mk-_", ["no such mask"]),
        ("scene", "a\0b", ["no such scene"]),
        ("scene", "\udcff", ["no such scene"]),
        ("scene", "", ["no such scene"]),
        ("mask", "x" * 100_000, ["no such mask"]),
    ],
)
def test_what_is_not_found_is_explained(found: Catalog, kind: Kind, name: str, words: list[str]):
    with found.read() as db, pytest.raises(CloudsegError) as error:
        names.get_id(db, kind, name)
    assert isinstance(error.value, InputError)
    assert [word for word in words if word not in str(error.value)] == []
    if "Did you mean" in str(error.value):
        assert "begin like" not in str(error.value)


def test_the_masks_of_a_scene_are_suggested_for_its_name(full_catalog: Catalog):
    with full_catalog.begin() as db:
        name = scene_rows.get_scene(db, scene_id(1)).name
    with full_catalog.read() as db, pytest.raises(NotInCatalog, match=r"Did you mean mk-. or mk-."):
        names.get_id(db, "mask", name)


def test_there_may_be_no_champion(catalog: Catalog):
    with catalog.read() as db, pytest.raises(NotInCatalog, match="there is no champion yet"):
        names.get_weights(db, "champion")


def test_completion_is_by_what_is_typed(found: Catalog):
    with found.read() as db:
        assert [choice.text for choice in names.complete(db, "weights", "")] == ["champion", "v4", "v3", "v2", "v1"]
        assert [choice.text for choice in names.complete(db, "weights", "w-01")] == [OTHER, LONG]
        assert [choice.text for choice in names.complete(db, "scene", "wild%")] == ["wild%_1"]
        assert [choice.text for choice in names.complete(db, "scene", "sc-")] == [
            scene_id(number) for number in (10, 9, 8, 7, 2, 1)
        ]
        assert names.complete(db, "scene", "\udcff") == []


def test_a_large_catalog_is_read_in_part(catalog: Catalog):
    with catalog.begin() as db:
        for number in range(60):
            scene_rows.add_scene(db, rows.scene(number))
    with catalog.read() as db:
        assert len(names.complete(db, "scene", "sc-")) == 50
        with pytest.raises(InputError, match=r"several scenes begin like this .*, …"):
            names.get_id(db, "scene", "sc-")
