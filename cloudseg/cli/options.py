"""Options that several commands have."""

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def together(*options: Command) -> Command:
    """Return a decorator that adds options in their order."""

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def cleaning_options(*, default: float | None) -> Command:
    """Return the options of what is done to the mask that a model draws, in the order in which it is done.

    Args:
        default: of the areas and of the width; None: whatever the settings say.
    """
    return together(
        click.option(
            "--threshold", type=float, help="Probability from which a pixel is cloud, instead of the model's."
        ),
        click.option(
            "--min-area-m2", type=float, default=default, metavar="M2", help="Clouds smaller than this become clear."
        ),
        click.option(
            "--min-hole-m2",
            type=float,
            default=default,
            metavar="M2",
            help="Clear areas smaller than this that a cloud touches become cloud.",
        ),
        click.option(
            "--buffer-m", type=float, default=default, metavar="M", help="Then widen clouds by this many meters."
        ),
    )
