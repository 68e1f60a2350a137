"""Generated pages are current, and hand-written pages match the code."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from cloudseg import keys
from cloudseg.catalog import tables
from cloudseg.cli import root
from cloudseg.settings import Settings

REPO = Path(__file__).parents[2]
DOCS = REPO / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current(generate: ModuleType):
    assert generate.stale_pages() == [], "run `make docs` and commit what changed"


def test_a_stale_page_is_detected(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(DOCS / "decisions", tmp_path / "decisions", ignore=shutil.ignore_patterns("index.md"))
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert set(generate.stale_pages()) == set(generate.PAGES)
    generate.write_pages()
    assert generate.stale_pages() == []
    (tmp_path / "reference" / "cli.md").write_text("older")
    assert generate.stale_pages() == ["reference/cli.md"]


def walk(command: click.Command, path: str = "cloudseg"):
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            if not child.hidden:
                yield from walk(child, f"{path} {name}")


@pytest.mark.parametrize(
    ("path", "command"), list(walk(root)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_has_help(path: str, command: click.Command):
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option)), path
    assert f"## {path}\n" in (DOCS / "reference" / "cli.md").read_text("utf-8")


HISTORY = {DOCS / "log.md", REPO / "CHANGELOG.md"}
"""They name things as they were called then."""
WRITTEN = sorted({*REPO.glob("*.md"), *DOCS.rglob("*.md")} - HISTORY - {DOCS / "reference/cli.md"})
FOLDERS = ("cloudseg", "dags", "plugins", "tools", "docker", "sql", "benchmarks", "examples", "tests", "docs", ".ci")
NAMING = sorted(
    path
    for path in (
        *(path for folder in FOLDERS for path in (REPO / folder).rglob("*")),
        *(REPO / name for name in ("Makefile", "pyproject.toml", "mkdocs.yml", ".pre-commit-config.yaml")),
        *WRITTEN,
    )
    if path.suffix in {".md", ".py", ".toml", ".yaml", ".yml", ".sql", ".env", ".sh", ".html"}
    or path.name == "Makefile"
    if path not in HISTORY
)
"""Files whose text, comments and docstrings name files, modules and commands."""


def test_commands_in_pages_and_code_exist():
    """In error messages, docstrings and the DAGs' manuals too."""
    printed = [
        (str(page.relative_to(REPO)), words)
        for page in NAMING
        for words in re.findall(r"(?:\.venv/bin/cloudseg|`cloudseg) ([^`#\n]+)", page.read_text("utf-8"))
    ]
    assert len(printed) >= 100
    for page, words in printed:
        command, path = root, []
        for word in words.split():
            if isinstance(command, click.Group) and word in command.commands:
                command = command.commands[word]
                path.append(word)
            elif word.startswith("--") and word != "--help":
                assert word in {name for option in command.params for name in option.opts + option.secondary_opts}, (
                    f"{page}: {words}"
                )
        assert path or words.strip() in ("--help", "COMMAND --help"), f"{page}: {words}"


def test_make_targets_on_the_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {word for page in NAMING for word in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text("utf-8"), re.M)}
    assert len(named) > 8
    assert named - targets == set()


def test_the_site_builds_without_a_warning(tmp_path: Path):
    """Every page is in the navigation, every link and anchor leads somewhere, every docstring is parsed."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    assert "from cloudseg import stages" in re.sub(
        r"<[^>]+>", "", (tmp_path / "start/first_masks.html").read_text("utf-8")
    )
    page = (tmp_path / "index.html").read_text("utf-8")
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//[^\"]*\.(?:js|css|woff2?)", page) == [], "loaded from another host"


def test_paths_in_pages_and_code_exist():
    """Of files, folders and decisions (by their number), from the root of the repository."""
    path = re.compile(rf"(?<![\w/.:-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w")
    # By users, by the build of the wheel; the last one is an address in the Airflow UI.
    made = {"docker/.env", "docker/inbox", "cloudseg/_sql", "cloudseg/browse"}
    named = {name: page for page in NAMING for name in path.findall(page.read_text("utf-8"))}
    assert len(named) >= 120
    wrong = {
        name: str(page.relative_to(REPO))
        for name, page in named.items()
        if "NNNN" not in name
        and name not in made
        and not (REPO / name).exists()
        and (Path(name).suffix or not list(REPO.glob(f"{name}*")))
    }
    assert wrong == {}


def test_modules_in_pages_and_code_exist():
    """`cloudseg.package.module.name` in docstrings, comments and pages. Assets and metrics have such names too."""
    written = [path.read_text("utf-8") for folder in ("dags", "plugins") for path in (REPO / folder).rglob("*.py")]
    others = {name for text in written for name in re.findall(r"\"(cloudseg\.[\w.]*\w)", text)}
    named = {
        name: page
        for page in NAMING
        for name in re.findall(r"(?<![\w/.-])(?:cloudseg|tools|benchmarks)(?:\.[A-Za-z]\w*)+", page.read_text("utf-8"))
    }
    assert len(named) >= 200
    wrong = {
        name: str(page.relative_to(REPO))
        for name, page in named.items()
        if not is_defined(name) and not any(name == other or name.startswith(f"{other}.") for other in others)
    }
    assert wrong == {}


def is_defined(name: str) -> bool:
    """Return whether a dotted name is a module, or a word in the file of the longest part that is one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = REPO.joinpath(*parts[:count])
        source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if source.is_file():
            return count == len(parts) or re.search(rf"\b{parts[count]}\b", source.read_text("utf-8")) is not None
    return False


def test_quoted_messages_are_those_of_the_code():
    """Users search for the text that they see."""
    pages = (DOCS / "how-to/troubleshooting.md", DOCS / "how-to/s3.md", DOCS / "concepts/security.md")
    text = " ".join(" ".join(page.read_text("utf-8").split()) for page in pages)
    quoted = set(re.findall(r"\"((?:the|there|no|this) [^\"]+)\"", text))
    assert len(quoted) >= 5
    code = "".join(path.read_text("utf-8") for path in (REPO / "cloudseg").rglob("*.py"))
    assert {message for message in quoted if message not in code} == set()


def test_pictures_are_small():
    """The repository keeps every version of a picture."""
    sizes = {path.name: path.stat().st_size for path in (DOCS / "assets").iterdir()}
    assert len(sizes) >= 5
    assert {name: size for name, size in sizes.items() if size > 150_000} == {}


def test_every_setting_has_a_description():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_on_disk_lists_every_kind_of_key():
    page = (DOCS / "reference" / "on_disk.md").read_text("utf-8")
    sample = "0" * 64
    made = [
        keys.scene(sample),
        keys.label(sample),
        keys.snapshot_manifest("sn-1"),
        keys.snapshot_shard(sample),
        keys.checkpoint("run-1", 1, sample),
        keys.weights(sample),
        keys.evaluation("ev-1", "report.html", sample),
        keys.verdict("ve-1"),
        keys.mask("w-1", "sc-1", "mask.tif", sample),
        keys.CHAMPION_POINTER,
    ]
    assert [key for key in made if f"`{key.split('/')[0]}/" not in page] == []


def test_the_glossary_has_every_table():
    page = (DOCS / "reference" / "glossary.md").read_text("utf-8").lower()
    assert [table for table in tables.metadata.tables if table != "snapshot_label" and f"**{table}**" not in page] == []


def test_links_between_pages_are_valid():
    broken = []
    for page in [*REPO.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPO)}: {target}")
    assert broken == []
