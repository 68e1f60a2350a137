"""One champion under concurrent promotions; the pointer follows the row; history is kept."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows
from cloudseg.catalog.session import now
from cloudseg.errors import InputError, NotInCatalog, ObjectCorrupt, ObjectMissing, PromotionRefused, StoreRefused
from cloudseg.records import Outcome, Verdict, Weights
from cloudseg.registry import find_champion, is_pointer_right, promote, register, repair_pointer, rollback
from cloudseg.storage import LocalStore

METADATA = {"architecture": "SimpleUNet", "bands": ["red"], "clip": 1.0, "mean": [0.0], "std": [1.0], "threshold": 0.5}


@pytest.fixture
def publish(store: LocalStore, catalog: Catalog) -> Callable[[str], Weights]:
    """Register weights whose bytes are the name."""

    def make(name: str) -> Weights:
        return register(
            store,
            catalog,
            weights=name.encode(),
            metadata=METADATA,
            companions={},
            run_id=None,
            snapshot_id=None,
            architecture="SimpleUNet",
        )

    return make


def add_verdict(catalog: Catalog, challenger: str, champion: str | None, outcome: Outcome) -> str:
    verdict_id = keys.make_id("ve", challenger, champion or "", outcome)
    verdict = Verdict(
        verdict_id=verdict_id,
        challenger_id=challenger,
        champion_id=champion,
        outcome=outcome,
        body={},
        created_at=now(),
    )
    with catalog.begin() as db:
        model_rows.add_verdict(db, verdict)
    return verdict_id


def pointer(store: LocalStore) -> dict[str, object]:
    return json.loads(store.get(keys.CHAMPION_POINTER))


def make_champion(store: LocalStore, catalog: Catalog, weights_id: str, expected: str | None) -> None:
    promote(store, catalog, weights_id, expected_champion=expected, verdict_id=None, actor="test", reason="a test")


def test_there_is_no_champion_at_first(store: LocalStore, catalog: Catalog) -> None:
    assert find_champion(catalog) is None
    assert repair_pointer(store, catalog) is False
    assert not store.exists(keys.CHAMPION_POINTER)


def test_promotion_names_the_champion_and_writes_the_pointer(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]
) -> None:
    weights = publish("one")
    verdict_id = add_verdict(catalog, weights.weights_id, None, "PROMOTE")
    done = promote(
        store, catalog, weights.weights_id, expected_champion=None, verdict_id=verdict_id, actor="cli", reason="better"
    )
    assert (done.generation, done.previous_weights_id, done.verdict_id) == (1, None, verdict_id)
    assert find_champion(catalog) == weights
    found = pointer(store)
    assert found["weights_id"] == weights.weights_id
    assert found["sha256"] == weights.sha256
    assert found["key"] == weights.key
    assert found["generation"] == 1
    assert found["threshold"] == 0.5
    assert str(found["promoted_at"]).endswith("Z")


def test_the_same_promotion_again_changes_nothing(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]
) -> None:
    weights = publish("one")
    verdict_id = add_verdict(catalog, weights.weights_id, None, "PROMOTE")
    wanted = {"expected_champion": None, "verdict_id": verdict_id, "actor": "cli", "reason": "better"}
    first = promote(store, catalog, weights.weights_id, **wanted)
    store.delete(keys.CHAMPION_POINTER)  # as if killed between the row and the pointer
    again = promote(store, catalog, weights.weights_id, **wanted)
    assert again == first
    assert pointer(store)["generation"] == 1


def test_another_champion_than_expected_refuses(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]
) -> None:
    one, two, three = (publish(name) for name in ("one", "two", "three"))
    make_champion(store, catalog, one.weights_id, None)
    with pytest.raises(PromotionRefused, match=f"found {one.weights_id}, expected {two.weights_id}"):
        make_champion(store, catalog, three.weights_id, two.weights_id)
    with pytest.raises(PromotionRefused, match="expected none"):
        make_champion(store, catalog, three.weights_id, None)
    with pytest.raises(PromotionRefused, match="already the champion"):
        make_champion(store, catalog, one.weights_id, one.weights_id)
    assert find_champion(catalog) == one


@pytest.mark.parametrize("outcome", ["HOLD", "REJECT"])
def test_a_verdict_against_it_refuses_unless_forced(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights], outcome: Outcome
) -> None:
    weights = publish("one")
    verdict_id = add_verdict(catalog, weights.weights_id, None, outcome)
    wanted = {"expected_champion": None, "verdict_id": verdict_id, "actor": "cli", "reason": "we need one"}
    with pytest.raises(PromotionRefused, match=outcome):
        promote(store, catalog, weights.weights_id, **wanted)
    assert find_champion(catalog) is None
    assert promote(store, catalog, weights.weights_id, **wanted, force=True).generation == 1


@pytest.mark.parametrize("force", [False, True])
def test_a_verdict_about_others_refuses(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights], force: bool
) -> None:
    """Even a forced promotion needs a verdict about these weights and this champion."""
    one, two, three = (publish(name).weights_id for name in ("one", "two", "three"))
    make_champion(store, catalog, one, None)
    for challenger, champion in ((three, one), (two, None), (two, three)):
        verdict_id = add_verdict(catalog, challenger, champion, "PROMOTE")
        with pytest.raises(PromotionRefused, match=f"other weights.*{challenger} against {champion or 'none'}"):
            promote(
                store,
                catalog,
                two,
                expected_champion=one,
                verdict_id=verdict_id,
                actor="cli",
                reason="x",
                force=force,
            )
    champion_now = find_champion(catalog)
    assert champion_now is not None
    assert champion_now.weights_id == one


def test_no_verdict_needs_a_reason(store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]) -> None:
    weights = publish("one")
    with pytest.raises(InputError, match="reason"):
        promote(store, catalog, weights.weights_id, expected_champion=None, verdict_id=None, actor="cli", reason=" ")


def test_bytes_must_be_there_and_whole(store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]) -> None:
    one, two = publish("one"), publish("two")
    store.delete(one.key)
    store.replace(two.key, b"damaged")
    with pytest.raises(ObjectMissing):
        make_champion(store, catalog, one.weights_id, None)
    with pytest.raises(ObjectCorrupt):
        make_champion(store, catalog, two.weights_id, None)
    with pytest.raises(NotInCatalog):
        make_champion(store, catalog, "w-unknown", None)
    assert find_champion(catalog) is None


def test_rollback_goes_back_step_by_step(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]
) -> None:
    names = [publish(name).weights_id for name in ("one", "two", "three")]
    for expected, weights_id in zip([None, *names], names, strict=False):
        make_champion(store, catalog, weights_id, expected)
    back = rollback(store, catalog, expected_champion=names[2], actor="cli", reason="seams")
    assert (back.generation, back.weights_id, back.previous_weights_id, back.action) == (
        4,
        names[1],
        names[2],
        "rollback",
    )
    assert pointer(store)["weights_id"] == names[1]
    assert rollback(store, catalog, expected_champion=names[2], actor="cli", reason="killed, so called again") == back
    assert rollback(store, catalog, expected_champion=names[1], actor="cli", reason="seams").weights_id == names[0]
    with pytest.raises(PromotionRefused, match="there is no earlier champion"):
        rollback(store, catalog, expected_champion=names[0], actor="cli", reason="seams")
    make_champion(store, catalog, names[2], names[0])
    with pytest.raises(PromotionRefused, match="another champion"):
        rollback(store, catalog, expected_champion=names[1], actor="cli", reason="long ago")
    assert rollback(store, catalog, expected_champion=names[2], actor="cli", reason="again").weights_id == names[0]
    with catalog.read() as db:
        assert [row.generation for row in model_rows.list_promotions(db)] == [7, 6, 5, 4, 3, 2, 1]


def test_rollback_without_a_champion_refuses(store: LocalStore, catalog: Catalog) -> None:
    with pytest.raises(PromotionRefused):
        rollback(store, catalog, expected_champion=None, actor="cli", reason="x")


def test_pointer_is_repaired_from_the_row(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]
) -> None:
    weights = publish("one")
    make_champion(store, catalog, weights.weights_id, None)
    right = store.get(keys.CHAMPION_POINTER)
    store.replace(keys.CHAMPION_POINTER, b"{}")
    assert repair_pointer(store, catalog) is True
    assert store.get(keys.CHAMPION_POINTER) == right
    assert repair_pointer(store, catalog) is False


def test_a_pointer_without_any_champion_is_removed(store: LocalStore, catalog: Catalog) -> None:
    store.replace(keys.CHAMPION_POINTER, b"{}")
    assert repair_pointer(store, catalog) is True
    assert not store.exists(keys.CHAMPION_POINTER)


def _obstruct(path: Path, obstacle: str) -> None:
    path.unlink(missing_ok=True)
    match obstacle:
        case "folder":
            path.mkdir()
        case "folder with a file":
            path.mkdir()
            (path / "x").write_bytes(b"x")
        case "dangling link":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("obstacle", ["folder", "folder with a file", "dangling link", "pipe"])
def test_an_obstacle_in_place_of_the_pointer_is_named(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights], obstacle: str
) -> None:
    one, two = publish("one"), publish("two")
    make_champion(store, catalog, one.weights_id, None)
    path = store.root / keys.CHAMPION_POINTER
    _obstruct(path, obstacle)
    assert not is_pointer_right(store, catalog)
    for act in (
        lambda: repair_pointer(store, catalog),
        lambda: make_champion(store, catalog, two.weights_id, one.weights_id),
        lambda: rollback(store, catalog, expected_champion=two.weights_id, actor="cli", reason="x"),
    ):
        with pytest.raises(StoreRefused, match=r"models/champion.json: .* cannot be written") as caught:
            act()
        assert not caught.value.retry_helps
    found = find_champion(catalog)
    assert found is not None
    assert found.weights_id == one.weights_id, "the history has both changes"
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert repair_pointer(store, catalog) is True
    assert pointer(store)["weights_id"] == one.weights_id


class OvertakenStore(LocalStore):
    """Lets another promotion finish, pointer and all, just before its first write of the pointer."""

    def __init__(self, root: Path, overtake: Callable[[], None]) -> None:
        super().__init__(root)
        self.written: list[str] = []
        """Keys that it wrote itself."""
        self._overtake: Callable[[], None] | None = overtake

    def _be_overtaken(self) -> None:
        overtake, self._overtake = self._overtake, None
        if overtake is not None:
            overtake()

    def put(self, key: str, data: bytes):
        self._be_overtaken()
        stored = super().put(key, data)
        self.written.append(key)
        return stored

    def replace(self, key: str, data: bytes, expected: bytes | None = None):
        self._be_overtaken()
        stored = super().replace(key, data, expected)
        self.written.append(key)
        return stored


def test_a_late_pointer_write_does_not_undo_a_newer_one(
    store: LocalStore, catalog: Catalog, publish: Callable[[str], Weights]
) -> None:
    """Not even for a moment: a reader never sees an earlier champion again, and a kill at that time does no harm."""
    one, two, three, four = (publish(name) for name in ("one", "two", "three", "four"))
    slow = OvertakenStore(store.root, lambda: make_champion(store, catalog, two.weights_id, one.weights_id))
    make_champion(slow, catalog, one.weights_id, None)
    assert slow.written == []
    assert pointer(store)["weights_id"] == two.weights_id
    slow = OvertakenStore(store.root, lambda: make_champion(store, catalog, four.weights_id, three.weights_id))
    make_champion(slow, catalog, three.weights_id, two.weights_id)
    assert slow.written == []
    assert pointer(store)["weights_id"] == four.weights_id
