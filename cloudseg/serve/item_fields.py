"""Fields extension of the STAC API: only the wanted fields of each item.

What a field of `include` names is there, whatever `exclude` says. Without `include`, everything is there that `exclude`
does not name. The type, the id and the collection are there unless they are excluded, so that an answer can be used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cloudseg.errors import InputError
from cloudseg.records import Json

MAX_FIELDS: Final = 100
_ALWAYS: Final = ("type", "id", "collection")


@dataclass(frozen=True)
class WantedFields:
    """Paths of fields, such as `properties.eo:cloud_cover`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def of(self, item: Json) -> Json:
        """Return an item with the wanted fields only; fields that it lacks are passed over."""
        if not self.include and not self.exclude:
            return item
        kept: Json = {name: item[name] for name in _ALWAYS if name in item} if self.include else _copy(item)
        for path in self.exclude:
            _remove(kept, path.split("."))
        for path in self.include:
            _add(kept, item, path.split("."))
        return kept


def fields_of_search(given: Any) -> WantedFields:
    """Return the fields of a search: `{"include": […], "exclude": […]}`, or a list of `name`, `+name`, `-name`.

    Raises:
        InputError: it is neither, or too long.
    """
    if not given:
        return WantedFields()
    if isinstance(given, dict):
        include, exclude = given.get("include") or [], given.get("exclude") or []
    else:
        names = [str(name).strip() for name in given]
        include = [name.lstrip("+ ") for name in names if name and not name.startswith("-")]
        exclude = [name[1:] for name in names if name.startswith("-")]
    found = WantedFields(_paths(include), _paths(exclude))
    if len(found.include) + len(found.exclude) > MAX_FIELDS:
        raise InputError(
            "too many fields",
            subject="fields",
            found=len(found.include) + len(found.exclude),
            expected=f"at most {MAX_FIELDS}",
        )
    return found


def _paths(names: Sequence[Any]) -> tuple[str, ...]:
    if any(not isinstance(name, str) or not 0 < len(name) <= 200 or name.count(".") > 5 for name in names):
        raise InputError(
            "not the name of a field", subject="fields", found=str(names)[:100], expected="such as properties.datetime"
        )
    return tuple(sorted(set(names)))


def _copy(value: Any) -> Any:
    """Return a copy of the objects within a value, which `_remove` changes."""
    return {name: _copy(part) for name, part in value.items()} if isinstance(value, dict) else value


def _remove(values: Any, path: list[str]) -> None:
    *parents, last = path
    for name in parents:
        values = values.get(name) if isinstance(values, dict) else None
    if isinstance(values, dict):
        values.pop(last, None)


def _add(kept: Json, item: Any, path: list[str]) -> None:
    *parents, last = path
    for name in parents:
        item = item.get(name) if isinstance(item, dict) else None
    if not isinstance(item, dict) or last not in item:
        return
    for name in parents:
        kept = kept.setdefault(name, {})
    kept[last] = item[last]
