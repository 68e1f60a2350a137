"""Docstrings are imperative and Google style, and the project's old private words stay out of code and pages."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

# Third-person verbs: a function's docstring is an instruction ("Return ...").
NOT_IMPERATIVE = re.compile(
    r"(?:Adds|Appends|Applies|Builds|Calls|Checks|Chooses|Collects|Computes|Converts|Copies|Counts|Creates|Deletes|Draws"
    r"|Finds|Follows|Forwards|Gets|Gives|Holds|Keeps|Lists|Loads|Makes|Maps|Measures|Opens|Parses|Passes|Prints|Publishes"
    r"|Raises|Reads|Records|Registers|Removes|Renders|Reports|Returns|Runs|Sends|Shows|Starts|Stops|Stores|Transforms"
    r"|Turns|Updates|Validates|Waits|Writes|Yields)\b"
)
NEVER_FIRST = re.compile(r"(?:Gives?|Lends?|Says?|Tells?|Returns)\b")
PROSE_RAISES = re.compile(r"\bRaises `?[A-Z]\w")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
SUPPRESSED_FORMAT = re.compile(r"#\s*fmt:\s*(?:skip|off)\b")

# Words of earlier releases that the field has other words for. The glossary lists those that stored data keep.
OLD_WORDS = [
    r"\bas in the seed\b|\bSEED_MEAN\b|\bseed_import\b|\byardstick\b",
    r"(?<!<)\bcircles?\b",
    r"\bjudg(?:e|es|ed|ing)\b|\bjudge_scenes\b",
    r"\bweigh(?:s|ed|ing)?\b",
    r"\bspeaks? (?:for|against)\b",
    r"\b(?:un)?bless(?:es|ed|ing|ings)?\b",
    r"\b(?:in|out of|nobody's) office\b|\bput_in_office\b",
    r"\bperson's (?:word|no|yes)\b|\bsays (?:yes|no)\b|\b_?Wish(?:es)?\b",
    r"\bfind_question\b|\bfind_work\b|\bsame question\b|_question\b",
    r"\bjoin_group\b|\bflip_at_prediction\b|\baverage_decay\b|\bfold_batch_norm\b",
    r"\btwins?\b|\bcompanions?\b|_companions?\b",
    r"\bgolden tiles?\b",
    r"\b(?:bring|brings|brought)[ _]up\b|\baverag(?:e|es|ed)[ _]down\b",
    r"\bquantis",
    r"\.numbers\b",
    r"(?-i:\bPiece\b)|\bplan_pieces\b",
    r"\blook_around\b|\bname_objects\b|\bcollect_objects\b|\balone_with\b",
    r"\btold_plainly\b|\bfaults\.py\b|\b_faults\b|(?-i:\bFault\b|\bFAULT\b)",
    r"\bshut_in\b|\bgiven up\b|\b_Patience\b",
    r"\bstray\b|\b_?strangers?\b",
    r"\boutgoing\b",
    r"\bworkplaces?\b|\bprivate folders?\b|\boutlives?\b",
    r"\bkeepers?\b",
    r"\bcount_and_tell\b|\bwas told\b",
    r"\bfront doors?\b",
    r"\bmended\b|\bfound so\b|\bculprits?\b",
    r"\b(?:has|have|without) (?:a|no) say\b|\bhangs on\b|\bnobody can be sure\b|\bas sure as\b",
]
STORED_NAMES = re.compile(
    r"\.?\bcompanions\b"  # column of `weights` and `mask`, and the arguments that fill it
    r"|[\"'](?:blessing|judged|flip_at_prediction|average_decay)[\"']"  # keys in stored JSON
    r"|`(?:flip_at_prediction|average_decay)`"
)
WITH_OLD_WORDS = {"docs/log.md", "docs/changelog.md", "docs/reference/glossary.md"}
PLACES = ("cloudseg", "dags", "plugins", "tools", "benchmarks", "docs")
TEXT = {".py", ".md", ".toml", ".html", ".sql", ".yaml"}


def tracked(*places: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *places], cwd=REPO, check=True, capture_output=True, text=True
    ).stdout
    return [path for name in listed.split("\0") if name and (path := REPO / name).is_file()]


def docstring_problems(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (*FUNCTION, ast.ClassDef, ast.Module)):
            continue
        text = ast.get_docstring(node)
        if text is None:
            continue
        where = f"{getattr(node, 'name', 'module')}: {text.splitlines()[0]}"
        if NEVER_FIRST.match(text) or (NOT_IMPERATIVE.match(text) and isinstance(node, FUNCTION)):
            yield f"not imperative, or not a standard verb: {where}"
        if PROSE_RAISES.search(text):
            yield f"errors belong into a section `Raises:`: {where}"


def old_words(text: str) -> list[str]:
    plain = STORED_NAMES.sub("", text)
    return [found[0] for word in OLD_WORDS for found in re.finditer(word, plain, re.IGNORECASE)]


CODE = [path for path in tracked(*PLACES) if path.suffix == ".py"]
PROSE = [
    path for path in tracked(*PLACES) if path.suffix in TEXT and path.relative_to(REPO).as_posix() not in WITH_OLD_WORDS
]


def name_of(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_docstrings_are_imperative(path: Path) -> None:
    assert list(docstring_problems(path.read_text(encoding="utf-8"))) == []


def test_the_formatter_decides_everywhere() -> None:
    found = [
        f"{name_of(path)}:{number}"
        for path in tracked()
        if path.suffix == ".py" and path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if SUPPRESSED_FORMAT.search(line)
    ]
    assert found == []


def test_old_words_do_not_come_back() -> None:
    found = [
        f"{name_of(path)}:{number}: {word}"
        for path in PROSE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in old_words(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "docstring",
    [
        "Give the mask.",
        "Returns the mask.",
        "Tell whether it fits.",
        "Return the mask. Raises BadScene where nothing is valid.",
        "Return the mask.\n\n    Raises BadScene if nothing is valid.",
    ],
)
def test_a_bad_docstring_is_found(docstring: str) -> None:
    assert list(docstring_problems(f'def mask():\n    """{docstring}"""\n'))


@pytest.mark.parametrize(
    "docstring",
    [
        "Return the mask.",
        "Raise BadScene if nothing is valid.",
        "Return the mask.\n\n    Raises:\n        BadScene: nothing is valid.\n    ",
    ],
)
def test_a_good_docstring_passes(docstring: str) -> None:
    assert list(docstring_problems(f'def mask():\n    """{docstring}"""\n')) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("the second blessing", ["blessing"]),
        ('body["blessing"]', []),
        ("its companion", ["companion"]),
        ("mask.companions -> 'item'", []),
        ("a private folder", ["private folder"]),
        ("quantised to 8 bits", ["quantis"]),
        ("digital numbers", []),
        ('<circle cx="1"/>', []),
        ("see the circle turn", ["circle"]),
    ],
)
def test_an_old_word_is_found(line: str, words: list[str]) -> None:
    assert old_words(line) == words


@pytest.mark.parametrize("comment", ["# fmt: skip", "#fmt:off"])
def test_a_suppressed_format_is_found(comment: str) -> None:
    assert SUPPRESSED_FORMAT.search(f"x = [1,2]  {comment}")
