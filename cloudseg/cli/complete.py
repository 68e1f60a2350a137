"""Tab completion of ids, versions, names of scenes, and recipes (docs/how-to/tab_completion.md).

It reads a bounded part of the catalog through connections that cannot write, and offers nothing where there is no
catalog, or where it does not answer within a second.
"""

from collections.abc import Callable
from typing import Final

from click import Context, Parameter
from click.shell_completion import CompletionItem

from cloudseg.recipe import recipe_names

Complete = Callable[[Context, Parameter, str], list[CompletionItem]]
_LONGEST_S: Final = 1.0
"""Longest wait for the database: somebody holds the Tab key."""


def names_of(*kinds: str, words: tuple[str, ...] = ()) -> Complete:
    """Return the completion of an argument that takes names of these kinds (`cloudseg.catalog.names.Kind`).

    Args:
        kinds: what is looked up.
        words: what is offered before.
    """

    def complete(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
        offered = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        try:
            return offered + _look_up(kinds, incomplete)
        except Exception:  # a message on the prompt would be worse than no suggestion; the command itself says it
            return offered

    return complete


def complete_recipe(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the shipped recipes that begin like this, else let the shell complete the path of a file."""
    found = [CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_path(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the path of a file or folder, where a parameter takes other text as well."""
    return [CompletionItem(incomplete, type="file")]


def _look_up(kinds: tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    from cloudseg.runtime import find_catalog

    catalog = find_catalog(timeout_s=_LONGEST_S)
    if catalog is None:
        return []
    from cloudseg.catalog.names import complete

    with catalog.read() as db:
        return [
            CompletionItem(choice.text, help=choice.help or None)
            for kind in kinds
            for choice in complete(db, kind, incomplete)  # type: ignore[arg-type]
        ]
