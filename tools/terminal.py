"""What the tools print while they work, and how a signal ends them."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console


class Screen:
    """Permanent lines on stderr with the time since the start, and one status line where stderr is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._began = time.monotonic()

    def print(self, text: str) -> None:
        """Print a permanent line; `text` may hold rich's markup."""
        seconds = int(time.monotonic() - self._began)
        self.console.print(f"[dim]{seconds // 60:2d}:{seconds % 60:02d}[/]  {text}", soft_wrap=True)

    @contextmanager
    def busy(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a status line during the block; yield a function that changes its text."""
        with self.console.status(text) as status:
            yield lambda words: status.update(words)


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP (a closed terminal) raise KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
