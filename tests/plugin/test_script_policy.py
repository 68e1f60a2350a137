"""No template has a script, a style or a foreign host of its own, on whichever page it ends up.

What answers carry: test_plugin_app.py; what a browser says about it: test_pages_in_browser.py.
"""

import re
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "cloudseg_ui"
TEMPLATES = sorted((PLUGIN / "templates").glob("*.html"))
SCRIPTS = [
    '<script src="{{ base }}/static/theme.js"></script>',
    '<script src="{{ base }}/static/pages.js" defer></script>',
]
FORBIDDEN = {
    "a script that is not one of the two static files": r"<script\b",
    "a style of its own": r"<style\b|\sstyle\s*=",
    "a handler of an event": r"\son[a-z]+\s*=",
    "an address that is a script": r"(?i)javascript:|\bdata:text",
    "the address of another host": r"(?i)https?:|[\"'(=]\s*//",
    "an object whose content is not checked": r"(?i)<(object|embed|base|applet)\b",
    "a value that is not escaped": r"\|\s*safe\b|autoescape|Markup",
}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_nothing_that_the_policy_forbids(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "base.html":
        assert [text.count(script) for script in SCRIPTS] == [1, 1]
        for script in SCRIPTS:
            text = text.replace(script, "")
    assert {what: found for what, pattern in FORBIDDEN.items() if (found := re.findall(pattern, text))} == {}


def test_the_static_files_are_those_that_have_a_route() -> None:
    from cloudseg_ui.app import STATIC

    assert {path.name for path in (PLUGIN / "static").iterdir()} == set(STATIC)
