"""Faults of accessibility that axe-core finds in a page which Playwright shows."""

from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe

GRAVE: Final = ("serious", "critical")
"""Impacts that no page may have (https://github.com/dequelabs/axe-core/blob/develop/doc/API.md, "Results Object")."""


def grave_faults(page: Any) -> list[str]:
    """Return the serious and critical faults of a page, one line per element: rule, element, what is wrong.

    axe-core gets into the page by the browser's debugging protocol, which the content security policy does not
    restrict. It does not look into a frame whose sandbox allows no scripts (an evaluation report).

    Args:
        page: a `playwright.sync_api.Page`.
    """
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}): {node['html'][:200]}: {node.get('failureSummary', '')}"
        for fault in found
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]
