"""Write the pages of `docs/` that follow from the code; `--check` names the stale ones and writes nothing.

`make docs` runs it; `make test` checks. A page has one function here; everything else in `docs/` is written by hand.
The site around the pages is built by mkdocs (`mkdocs.yml`, `make docs-site`).
"""

import argparse
import ast
import itertools
import re
import sys
import textwrap
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sqlalchemy import Column

from cloudseg import api, records, stages
from cloudseg import recipe as recipes
from cloudseg.catalog import tables
from cloudseg.cli import root
from cloudseg.monitor import exposition
from cloudseg.monitor.alerts import ALERTS
from cloudseg.settings import Settings

DOCS = Path(__file__).parent
PROJECT = DOCS.parent / "pyproject.toml"
PACKAGE = DOCS.parent / "cloudseg"
DAGS = DOCS.parent / "dags"
SQL = DOCS.parent / "sql"
_NOTE = "<!-- Written by docs/generate.py from the code: run `make docs`, do not edit. -->"
_WIDTH = 110
_API = set(api.__all__) - {"load"}


def cli_page() -> str:
    """Every command with its help text."""
    parts = ["# Command line\n\n`cloudseg COMMAND --help` prints the same.\n"]
    parts += [f"\n## {name}\n\n```\n{text}\n```\n" for name, text in _commands(root, "cloudseg", None)]
    return "".join(parts)


def settings_page() -> str:
    """Every environment variable."""
    head = (
        "# Settings\n\nSettings are environment variables. All have defaults: nothing must be set. "
        "An unknown `CLOUDSEG_` variable is an error.\n\n| variable | type | default | meaning |\n|---|---|---|---|\n"
    )
    return head + "".join(_row(f"CLOUDSEG_{name.upper()}", field) for name, field in Settings.model_fields.items())


def recipes_page() -> str:
    """Every value of a recipe, and the shipped recipes."""
    parts = [
        "# Recipes\n\n",
        _prose(
            "A recipe configures a run: a TOML file whose hash is in the run, the weights and the mask's tags. "
            "`--recipe` takes the name of a shipped recipe or the path of a `.toml` file."
        ),
        "\n\n## Shipped\n\n",
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
    parts = [
        "# Schema of the catalog\n\nTimes are UTC. A key is the name of an object in the store ([keys](on_disk.md)).\n"
    ]
    for table in tables.metadata.sorted_tables:
        model = _row_class(table.name)
        parts.append(
            f"\n## {table.name}\n\n{_first_line(model)}\n\n| column | type | null | meaning |\n|---|---|---|---|\n"
        )
        parts += [_column(column, model) for column in table.columns]
    parts.append("\n## Views for SQL clients\n\n| view | |\n|---|---|\n")
    parts += [_view(path, "") for path in sorted((SQL / "views").glob("*.sql"))]
    parts += [_view(path, "gis.") for path in sorted((SQL / "gis").glob("*.sql"))[1:]]
    parts.append("\n## Functions for SQL clients\n\nOn PostgreSQL only.\n\n| function | |\n|---|---|\n")
    parts += [_view(path, "") for path in sorted((SQL / "functions").glob("*.sql"))]
    parts.append(
        f"\nThe views of schema `gis` need PostGIS, which also gets this:\n\n```sql\n{_first_file('gis')}```\n"
    )
    return "".join(parts)


def alerts_page() -> str:
    """Every alert with its severity and sentence."""
    parts = [
        "# Alerts\n\n",
        _prose(
            "What the service sends to the webhook and by mail ([how-to](../how-to/alerts.md)). The name is the anchor "
            "in the runbook. An alert that lasts is sent when it begins, and its end is a message of its own."
        ),
        "\n\n| name | severity | event | lasts | sentence |\n|---|---|---|---|---|\n",
    ]
    parts += [
        f"| `{kind.name}` | {kind.severity} | {kind.title} | {'yes' if kind.lasts else ''} | {_cell(kind.sentence)} |\n"
        for kind in ALERTS.values()
    ]
    return "".join(parts)


def figures_page() -> str:
    """Every metric that is scraped, with the figure behind each of its samples."""
    parts = [
        "# Figures\n\n",
        _prose(
            "What `cloudseg metrics` prints and Prometheus scrapes ([how-to](../how-to/monitoring.md)). The name of a "
            "metric ends with its unit; the figure in the second column is the name in `cloudseg metrics --json`. A "
            "figure that is None there has no sample. Times are Unix timestamps: an age is `time()` minus the metric."
        ),
        "\n\n| metric | figure | meaning |\n|---|---|---|\n",
    ]
    for metric in exposition.METRICS:
        for labels, path in metric.samples.items():
            pairs = ", ".join(f'{name}="{value}"' for name, value in zip(metric.labels, labels, strict=True))
            name = f"{exposition.PREFIX}{metric.name}{{{pairs}}}" if pairs else exposition.PREFIX + metric.name
            parts.append(f"| `{name}` | `{path}` | {_cell(exposition.describe(path))} |\n")
    return "".join(parts)


def dags_page() -> str:
    """The operator's manual: every DAG file's docstring with its schedule and the values of its form.

    Airflow is not needed.
    """
    parts = ["# DAGs\n\nWhat runs when. The Airflow UI shows the same text for each DAG.\n"]
    for path in sorted(DAGS.glob("cloudseg_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        calls = [
            (function.name, call)
            for function in functions
            for call in function.decorator_list
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "cloudseg_dag"
        ]
        for dag_id, call in calls:
            given = {word.arg: word.value for word in call.keywords}
            parts.append(
                f"\n## {dag_id}\n\n{ast.get_docstring(tree)}\n\nSchedule: `{ast.unparse(given['schedule'])}`\n"
            )
            parts.append("\n| form | default | values | meaning |\n|---|---|---|---|\n")
            parts += _form_rows(given["params"])
    return "".join(parts)


def modules_page() -> str:
    """Every module with the first line of its docstring, by package."""
    parts = [
        "# Modules\n\n"
        "Every module of `cloudseg` and what it is for, in the order of the import rule: a package imports only "
        "lower ones.\n"
    ]
    for name in _packages():
        paths = sorted((PACKAGE / name).rglob("*.py")) if (PACKAGE / name).is_dir() else [PACKAGE / f"{name}.py"]
        parts.append(f"\n## {name}\n\n| module | |\n|---|---|\n")
        parts += [f"| `{_dotted(path)}` | {_cell(_summary(path))} |\n" for path in paths]
    return "".join(parts)


def python_page() -> str:
    """The public functions and records; mkdocstrings fills in their docstrings when the site is built."""
    parts = [
        "# Python API\n\n",
        _prose(
            "Two interfaces: `cloudseg.load` and `cloudseg.open_masks` for people who use masks "
            "([how-to](../how-to/python.md)), and `cloudseg.stages` for those who run the service. "
            "[Modules](modules.md) lists everything else."
        ),
        "\n\n## Use a model and its masks\n",
    ]
    parts += [_documented(f"{getattr(api, name).__module__}.{name}") for name in ("load", *sorted(_API))]
    parts += [
        "\n## Stages\n\n",
        _prose(
            "One function for each step of the service. The command line and the DAGs call nothing else. Stages read "
            "the [settings](settings.md) from the environment and return records."
        ),
        '\n\n```python\nfrom cloudseg import stages\n\nstages.ingest("tiles/")\n'
        'stages.retrain("nightly", minutes=30)\nstages.predict(new=True)\n```\n',
    ]
    parts += [_documented(f"{getattr(stages, name).__module__}.{name}") for name in stages.__all__]
    parts.append("\n## Recipes\n")
    parts += [_documented(f"cloudseg.recipe.{name}") for name in ("load_recipe", "recipe_from", "recipe_names")]
    parts.append("\n## Records\n\nWhat stages return. Rows of the catalog are in the [schema](schema.md).\n")
    found = [name for name in vars(records) if name.endswith("Record") and name != "Record"]
    parts += [_documented(f"{getattr(records, name).__module__}.{name}") for name in found]
    return "".join(parts) + "\n## Errors\n\nAll are subclasses of `CloudsegError`.\n" + _documented("cloudseg.errors")


def layers_picture() -> str:
    """The import rule as a picture: one row of boxes for each layer, top first."""
    width, row = 720, 44
    layers = [[name.strip() for name in layer.split("|")] for layer in _layers()]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {row * len(layers) + 8}" role="img">\n'
        "<title>Layers of the package cloudseg: each imports only those below it</title>\n<style>"
        "rect{fill:#eef4fa;stroke:#2b6cb0}text{font:15px system-ui,sans-serif;text-anchor:middle;fill:#1a202c}"
        "@media(prefers-color-scheme:dark){rect{fill:#172a3f;stroke:#63b3ed}text{fill:#e2e8f0}}</style>\n"
    ]
    for line, names in enumerate(layers):
        box = (width - 8) / len(names)
        for column, name in enumerate(names):
            x, y = 4 + column * box, 6 + line * row
            parts.append(f'<rect x="{x + 3:.0f}" y="{y}" width="{box - 6:.0f}" height="{row - 10}" rx="6"/>')
            parts.append(f'<text x="{x + box / 2:.0f}" y="{y + 22}">{name}</text>\n')
    return "".join(parts) + "</svg>\n"


def decisions_page() -> str:
    """Every decision with its status."""
    parts = [
        "# Decisions\n\n",
        _prose(
            "Architecture decision records: status, context, decision, alternatives, consequences. A decision that no "
            "longer holds names the one that supersedes it."
        ),
        "\n\n| decision | status |\n|---|---|\n",
    ]
    for path in sorted((DOCS / "decisions").glob("0*.md")):
        text = path.read_text("utf-8")
        title, status = (
            re.search(r"^# (.+)", text),
            re.search(r"^## Status\n\n(.+?)\n\n", text, re.MULTILINE | re.DOTALL),
        )
        if title is None or status is None:
            raise ValueError(f"{path}: a decision begins with `# NNNN Title` and `## Status`")
        parts.append(f"| [{title[1]}]({path.name}) | {_cell(status[1])} |\n")
    return "".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli_page,
    "reference/settings.md": settings_page,
    "reference/recipes.md": recipes_page,
    "reference/schema.md": schema_page,
    "reference/dags.md": dags_page,
    "reference/alerts.md": alerts_page,
    "reference/figures.md": figures_page,
    "reference/python.md": python_page,
    "reference/modules.md": modules_page,
    "assets/layers.svg": layers_picture,
    "decisions/index.md": decisions_page,
}


def stale_pages() -> list[str]:
    """Return the pages that differ from what the code generates."""
    return [
        name
        for name, make in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text("utf-8") != _with_note(make())
    ]


def write_pages() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(_with_note(make()), encoding="utf-8")


def _documented(name: str) -> str:
    return f"\n::: {name}\n"


def _with_note(page: str) -> str:
    """Return the page with a note behind its first line, which is the title."""
    title, _, rest = page.partition("\n")
    return f"{title}\n{_NOTE}\n{rest}"


def _prose(text: str) -> str:
    """Return a paragraph in lines of at most 120 characters, as the hand-written pages have them."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _packages() -> list[str]:
    """Return the parts of `cloudseg` from the top layer down."""
    return [name.strip() for layer in _layers() for name in layer.split("|")]


def _layers() -> list[str]:
    """Return the layers of the import contract, top first; parts of one layer are divided by `|`."""
    contracts = tomllib.loads(PROJECT.read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer for layer in layers if layer != "__main__"]


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def _summary(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n\n")[0]


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
    null, meaning = "yes" if column.nullable else "", _cell(field.description or "")
    return f"| `{column.name}`{key} | {column.type}{to} | {null} | {meaning} |\n"


def _view(path: Path, schema: str) -> str:
    return f"| `{schema}{path.stem[5:]}` | {_cell(_comment(path.read_text('utf-8')))} |\n"


def _comment(sql: str) -> str:
    lines = itertools.takewhile(lambda line: line.startswith("--"), sql.splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def _first_file(folder: str) -> str:
    return min((SQL / folder).glob("*.sql")).read_text("utf-8")


def _row_class(table: str) -> type[BaseModel]:
    name = "Quarantined" if table == "quarantine" else table.title().replace("_", "")
    found: type[BaseModel] = getattr(records, name)
    return found


def _limits(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = ((sign, getattr(rule, name, None)) for rule in field.metadata for name, sign in signs.items())
    found = [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
    return f", {' and '.join(found)}" if found else ""


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in inner if part is not type(None))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    plain = {
        "str": "text",
        "int": "integer",
        "float": "number",
        "bool": "`true` or `false`",
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
            default = f"`{ast.unparse(param.args[0])}`" if param.args else "required"
            yield f"| `{ast.literal_eval(name)}` | {default} | {values} | {_cell(meaning)} |\n"


def _form_values(rules: dict[str | None, ast.expr]) -> list[str]:
    """Return the allowed values as a form's reader needs them: the choices, or the types."""
    choices = rules["enum"] if "enum" in rules else rules["type"]
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
    """Write the pages, or check them and exit with status 1 where one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="name the stale pages and write nothing")
    if not parser.parse_args().check:
        write_pages()
    elif stale := stale_pages():
        sys.exit(f"stale: {', '.join(stale)}. Run `make docs` and commit what changed.")
    print(f"docs: {', '.join(PAGES)} current")


if __name__ == "__main__":
    main()
