"""A step that is killed at any commit point and restarted keeps all guarantees of the service.

No row without bytes, no label lost, one champion, the same rows and bytes as undisturbed, orphans collected, nothing
left in the temporary folder. `make test-faults` runs it and prints the table.
"""

from collections.abc import Callable

import pytest

from cloudseg.storage import Store
from tests.faults.commit_points import READS, WRITES
from tests.faults.scenario import Kill, Scenario, kill_everywhere, numbers_to_kill, spread
from tests.faults.steps import KILLED


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", KILLED)
def test_step_killed_at_any_commit_point_recovers(
    scenario: Scenario, step: str, record_kills: Callable[[list[Kill]], None]
) -> None:
    kills = kill_everywhere(scenario, step)
    record_kills(kills)
    broken = {f"{kill.number} before {kill.point}": kill.violations for kill in kills if kill.violations}
    assert len(scenario.points[step]) > 1, "no commit point was traced"
    assert kills
    assert broken == {}


def test_every_store_method_is_classified_as_read_or_write() -> None:
    methods = {name for name in vars(Store) if not name.startswith("_")}
    assert methods == {*WRITES, *READS}


def test_every_point_is_killed_but_repetitions_of_stac_documents() -> None:
    points = [
        "put masks/w-*/sc-*/mask.*.qml",
        "put masks/w-*/sc-*/mask.*.qml",
        "put stac/masks/2024-01/mk-*.json",
        "put stac/masks/2024-01/catalog.json",
        "put stac/masks/2024-02/mk-*.json",
        "put stac/masks/undated/mk-*.json",
        "put stac/masks/undated/catalog.json",
        "replace stac/masks/collection.json",
        "commit reader_switch",
        "the end",
    ]
    assert numbers_to_kill(points) == [1, 2, 3, 6, 7, 8, 9, 10]
    assert numbers_to_kill(["commit label", "the end"]) == [1, 2]


def test_a_sample_is_spread_over_the_step():
    assert spread([1, 2, 3, 6, 7, 8, 9, 10], 4) == [2, 6, 8, 10]
    assert spread([1, 2, 3, 6, 7, 8, 9, 10], 1) == [7]
    assert spread([1, 2, 3], 4) == spread([1, 2, 3], 0) == [1, 2, 3]
    assert spread([1, 2, 3, 4, 5], 3) == [1, 3, 5]
