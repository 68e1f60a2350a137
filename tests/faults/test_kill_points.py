"""Killed at every commit point of every step, restarted: all promises of the service hold.

No row without bytes, no label lost, one champion, the same rows and bytes as undisturbed, orphans collected, nothing
left behind. `make test-faults` runs it and prints the table.
"""

from collections.abc import Callable

import pytest

from cloudseg.storage import Store
from tests.faults.points import READS, WRITES
from tests.faults.steps import KILLED
from tests.faults.way import Kill, Way, kill_everywhere


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", KILLED)
def test_a_step_killed_anywhere_ends_as_if_it_had_not_been(
    way: Way, step: str, write_down: Callable[[list[Kill]], None]
) -> None:
    kills = kill_everywhere(way, step)
    write_down(kills)
    broken = {f"{kill.number} before {kill.point}": kill.faults for kill in kills if kill.faults}
    assert len(kills) > 1, "a step that commits nothing was not watched"
    assert broken == {}


def test_every_method_of_a_store_is_known_to_the_harness() -> None:
    methods = {name for name in vars(Store) if not name.startswith("_")}
    assert methods == {*WRITES, *READS}
