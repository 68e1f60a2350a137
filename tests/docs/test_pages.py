"""Generated pages are current, and the pages written by hand name what the code has."""

import importlib.util
import re
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


def test_a_stale_page_is_noticed(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert set(generate.stale_pages()) == set(generate.PAGES)
    generate.write_pages()
    assert generate.stale_pages() == []
    (tmp_path / "cli.md").write_text("older")
    assert generate.stale_pages() == ["cli.md"]


def walk(command: click.Command, path: str = "cloudseg"):
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            if not child.hidden:
                yield from walk(child, f"{path} {name}")


@pytest.mark.parametrize(
    ("path", "command"), list(walk(root)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_explains_itself(path: str, command: click.Command):
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option)), path
    assert f"## {path}\n" in (DOCS / "cli.md").read_text("utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_commands_on_a_page_are_commands_of_the_program(page: str):
    printed = re.findall(r"(?:\.venv/bin/cloudseg|`cloudseg) ([^`#\n]+)", (REPO / page).read_text("utf-8"))
    assert len(printed) >= 5
    for words in printed:
        command, path = root, []
        for word in words.split():
            if isinstance(command, click.Group) and word in command.commands:
                command = command.commands[word]
                path.append(word)
            elif word.startswith("--") and word != "--help":
                assert word in {name for option in command.params for name in option.opts + option.secondary_opts}, (
                    f"{page}: {words}"
                )
        assert path or words.strip() in ("--help",), f"{page}: {words}"


def test_make_targets_on_the_front_page_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", (REPO / "README.md").read_text("utf-8"))) <= targets


def test_every_setting_says_what_it_means():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_on_disk_names_every_key():
    page = (DOCS / "on_disk.md").read_text("utf-8")
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


def test_the_glossary_holds_the_words_of_the_schema():
    page = (DOCS / "glossary.md").read_text("utf-8").lower()
    assert [table for table in tables.metadata.tables if table != "snapshot_label" and f"**{table}**" not in page] == []


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in [REPO / "README.md", REPO / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(REPO)}: {target}")
    assert broken == []
