"""Keys that rows name: reading pages and looking up keys give the same, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from cloudseg import keys
from cloudseg.catalog import Catalog, tables
from cloudseg.stages.listing import Listing
from cloudseg.stages.references import PAGE, find_named, iter_named
from cloudseg.storage import LocalStore
from tests.catalog import rows

SHA = keys.sha256_of(b"an object")
SCENES = 2 * PAGE + 1


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path, migrated_file: Path) -> Iterator[Catalog]:
    """One row of every kind, and more masked scenes than two pages hold, each with keys as cloudseg makes them."""
    if request.param == "sqlite":
        (tmp_path / "catalog.db").write_bytes(migrated_file.read_bytes())
        catalog = Catalog(make_url(f"sqlite:///{tmp_path / 'catalog.db'}"))
        fill(catalog)
        yield catalog
        catalog.engine.dispose()
    else:
        with request.getfixturevalue("postgresql").migrated() as url:
            catalog = Catalog(url)
            fill(catalog)
            yield catalog
            catalog.engine.dispose()


def fill(catalog: Catalog) -> None:
    rows.fill(catalog)
    scene, mask = rows.scene(1).model_dump(), rows.mask(1, of=1, by=1).model_dump()
    stored = {"sha256": SHA, "size": 1}
    with catalog.begin() as db:
        report = {"html": {"key": keys.evaluation("ev-1", "report.html", SHA), **stored}}
        db.execute(tables.evaluation.update().values(report=report))
        state = {"run_id": "run-1", "step": 7, "key": keys.checkpoint("run-1", 7, SHA), **stored}
        db.execute(tables.checkpoint.insert(), state | {"created_at": rows.START})
        db.execute(tables.mask.delete())  # their keys do not have the form of cloudseg's
        numbers = range(100, 100 + SCENES)
        db.execute(
            tables.scene.insert(),
            [
                scene
                | {"scene_id": f"sc-{i}", "source_sha256": str(i), "key": keys.scene(keys.sha256_of(str(i).encode()))}
                for i in numbers
            ],
        )
        db.execute(
            tables.mask.insert(),
            [
                mask
                | {
                    "mask_id": f"mk-{i}",
                    "scene_id": f"sc-{i}",
                    "key": mask_key(i, "mask.tif"),
                    "companions": {"item": {"key": mask_key(i, "item.json"), "sha256": SHA, "size": 1}},
                }
                for i in numbers
            ],
        )


def mask_key(number: int, name: str) -> str:
    return keys.mask("w-1", f"sc-{number}", name, SHA)


def test_what_is_read_in_pages_is_found_by_key(catalog: Catalog, tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    named = [key for key, _ in iter_named(catalog, store)]
    kinds = {prefix: [key for key in named if key.startswith(prefix)] for prefix in keys.PREFIXES}
    assert (len(kinds["scenes/"]), len(kinds["masks/"])) == (SCENES + 2, 2 * SCENES)
    assert {prefix for prefix, found in kinds.items() if not found} == {"shards/", "doctor/"}, (
        "no manifest is in the store"
    )
    assert len({*kinds["scenes/"], *kinds["masks/"]}) == 3 * SCENES + 2, "no page comes twice"
    with catalog.read() as db:
        for at in range(0, len(named), PAGE):
            asked = named[at : at + PAGE]
            assert find_named(db, store, [*asked, *(f"{key}x" for key in asked[:10])]) == set(asked)


@pytest.mark.parametrize(
    "key",
    [
        *(f"{prefix}x" for prefix in keys.PREFIXES if prefix != "shards/"),
        keys.mask("w-1", "sc-1", "mask.tif", SHA),
        "masks/w-1/sc-100/a/b",
    ],
)
def test_what_no_row_names_is_not_found(catalog: Catalog, tmp_path: Path, key: str):
    with catalog.read() as db:
        assert find_named(db, LocalStore(tmp_path / "store"), [key]) == set()


def test_a_listing_returns_what_it_lacks():
    with Listing() as listing:
        listing.add(["b", "a", "b"])
        listing.add(["a", "quote\"'s", "ü"])
        assert listing.lacking(["z", "a", "quote\"'s", "y", "ü"]) == ["z", "y"]
        assert listing.lacking([]) == []
