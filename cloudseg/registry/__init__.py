"""Published weights, their versions and the one champion: rows with a history. No torch here."""

from cloudseg.registry.champion import (
    find_champion,
    find_earlier_champion,
    is_pointer_right,
    promote,
    repair_pointer,
    rollback,
)
from cloudseg.registry.register import register

__all__ = [
    "find_champion",
    "find_earlier_champion",
    "is_pointer_right",
    "promote",
    "register",
    "repair_pointer",
    "rollback",
]
