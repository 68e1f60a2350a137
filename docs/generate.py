"""Writes the pages of `docs/` that follow from the code; `--check` tells which are stale and writes nothing.

`make docs` runs it; `make test` checks. A page has one function here; everything else in `docs/` is written by hand.
"""

import argparse
import ast
import itertools
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sqlalchemy import Column

from cloudseg import recipe as recipes
from cloudseg import records
from cloudseg.catalog import tables
from cloudseg.cli import root
from cloudseg.settings import Settings

DOCS = Path(__file__).parent
DAGS = DOCS.parent / "dags"
SQL = DOCS.parent / "sql"
_NOTE = "<!-- Written by docs/generate.py from the code: run `make docs`, do not edit. -->\n\n"
_WIDTH = 110


def cli_page() -> str:
    """Every command with its help text."""
    parts = ["# Command line\n\n`cloudseg COMMAND --help` prints the same.\n"]
    parts += [f"\n## {name}\n\n```\n{text}\n```\n" for name, text in _commands(root, "cloudseg", None)]
    return "".join(parts)


def settings_page() -> str:
    """Every environment variable."""
    head = (
        "# Settings\n\nWhere things are comes from the environment. All have defaults: nothing must be set. "
        "An unknown `CLOUDSEG_` variable is an error.\n\n| variable | type | default | meaning |\n|---|---|---|---|\n"
    )
    return head + "".join(_row(f"CLOUDSEG_{name.upper()}", field) for name, field in Settings.model_fields.items())


def recipes_page() -> str:
    """Every value of a recipe, and the shipped recipes."""
    parts = [
        "# Recipes\n\nHow a run is made: a TOML file, frozen and hashed into the run, the weights and the mask's tags. "
        "`--recipe` takes the name of a shipped recipe or the path of a `.toml` file.\n\n## Shipped\n\n",
        *(f"- `{name}`: {recipes.load_recipe(name).description}\n" for name in recipes.recipe_names()),
    ]
    sections: dict[str, type[BaseModel]] = {"": recipes.Recipe, **dict(_parts(recipes.Recipe))}
    for name, model in sections.items():
        parts.append(f"\n## {f'[{name}]' if name else 'Top level'}\n\n{_first_line(model)}\n\n")
        parts.append("| value | type | default | meaning |\n|---|---|---|---|\n")
        fields = model.model_fields.items()
        parts += [_row(key, field) for key, field in fields if name or key not in sections]
    return "".join(parts)


def schema_page() -> str:
    """Every table of the catalog."""
    parts = ["# Schema of the catalog\n\nTimes are UTC. A key is a name in the object store (on_disk.md).\n"]
    for table in tables.metadata.sorted_tables:
        model = _row_class(table.name)
        parts.append(
            f"\n## {table.name}\n\n{_first_line(model)}\n\n| column | type | null | meaning |\n|---|---|---|---|\n"
        )
        parts += [_column(column, model) for column in table.columns]
    parts.append("\n# Views for people with a SQL client\n\n| view | |\n|---|---|\n")
    parts += [_view(path, "") for path in sorted((SQL / "views").glob("*.sql"))]
    parts += [_view(path, "gis.") for path in sorted((SQL / "gis").glob("*.sql"))[1:]]
    parts.append(
        f"\nThe views of schema `gis` need PostGIS, which also gets this:\n\n```sql\n{_first_file('gis')}```\n"
    )
    return "".join(parts)


def dags_page() -> str:
    """The operator's manual: every DAG file's docstring with its schedule and the values of its form.

    Airflow is not needed.
    """
    parts = ["# DAGs\n\nWhat runs when. The same text stands in the Airflow UI beside each DAG.\n"]
    for path in sorted(DAGS.glob("cloudseg_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        calls = [(f.name, call) for f in functions for call in f.decorator_list if isinstance(call, ast.Call)]
        for dag_id, call in calls:
            given = {word.arg: word.value for word in call.keywords}
            parts.append(
                f"\n## {dag_id}\n\n{ast.get_docstring(tree)}\n\nSchedule: `{ast.unparse(given['schedule'])}`\n"
            )
            parts.append("\n| form | default | values | meaning |\n|---|---|---|---|\n")
            parts += _form_rows(given["params"])
    return "".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "settings.md": settings_page,
    "recipes.md": recipes_page,
    "schema.md": schema_page,
    "DAGs.md": dags_page,
}


def stale_pages() -> list[str]:
    """Name the pages that are not what the code says."""
    return [
        name
        for name, make in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text("utf-8") != _NOTE + make()
    ]


def write_pages() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        (DOCS / name).write_text(_NOTE + make(), encoding="utf-8")


def _commands(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    settings: dict[str, Any] = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent, **settings)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            if not command.commands[child].hidden:
                yield from _commands(command.commands[child], f"{name} {child}", context)


def _parts(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
    return f"| `{name}` | {_type(field.annotation)}{_limits(field)} | {default} | {_cell(field.description or '')} |\n"


def _column(column: Column[Any], model: type[BaseModel]) -> str:
    field = model.model_fields[column.name]
    key = " (key)" if column.primary_key else ""
    to = "".join(f" → {key.column.table.name}" for key in column.foreign_keys)
    return f"| `{column.name}`{key} | {column.type}{to} | {'yes' if column.nullable else ''} | {_cell(field.description or '')} |\n"


def _view(path: Path, schema: str) -> str:
    return f"| `{schema}{path.stem[5:]}` | {_cell(_comment(path.read_text('utf-8')))} |\n"


def _comment(sql: str) -> str:
    lines = itertools.takewhile(lambda line: line.startswith("--"), sql.splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def _first_file(folder: str) -> str:
    return min((SQL / folder).glob("*.sql")).read_text("utf-8")


def _row_class(table: str) -> type[BaseModel]:
    names = {"quarantine": "Quarantined", "snapshot_label": "SnapshotLabel"}
    found: type[BaseModel] = getattr(records, names.get(table, table.capitalize()))
    return found


def _limits(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = ((sign, getattr(rule, name, None)) for rule in field.metadata for name, sign in signs.items())
    found = [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
    return f", {' and '.join(found)}" if found else ""


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in inner if part is not type(None))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    plain = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "true or false",
        "Path": "path",
        "SecretStr": "text (secret)",
    }
    name = getattr(annotation, "__name__", str(annotation))
    return plain.get(name, name)


def _plain(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)).replace("'", '"') if isinstance(value, tuple) else str(value)


def _form_rows(params: ast.expr) -> Iterator[str]:
    for name, param in zip(params.keys, params.values, strict=True) if isinstance(params, ast.Dict) else ():
        if name is not None and isinstance(param, ast.Call):
            rules = {word.arg: word.value for word in param.keywords}
            values = " or ".join(f"`{part}`" for part in _form_values(rules))
            meaning = ast.literal_eval(rules["description"])
            yield f"| `{ast.literal_eval(name)}` | `{ast.unparse(param.args[0])}` | {values} | {_cell(meaning)} |\n"


def _form_values(rules: dict[str | None, ast.expr]) -> list[str]:
    """Return the allowed values as a form's reader needs them: the choices, or the types."""
    choices = rules.get("enum", rules["type"])
    if isinstance(choices, ast.Name):
        choices = _constant(choices.id)
    found = ast.literal_eval(choices)
    return [str(value) for value in (found if isinstance(found, list) else [found])]


def _constant(name: str) -> ast.expr:
    """Return the value of a constant that the DAG files share."""
    lines = ast.parse((DAGS / "cloudseg_dagkit.py").read_text("utf-8")).body
    return next(line.value for line in lines if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Write, or check and leave with status 1 where a page is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="tell which pages are stale and write nothing")
    if not parser.parse_args().check:
        write_pages()
    elif stale := stale_pages():
        sys.exit(f"stale: {', '.join(stale)}. Run `make docs` and commit what changed.")
    print(f"docs: {', '.join(PAGES)} current")


if __name__ == "__main__":
    main()
