"""Options that several commands have."""

from collections.abc import Callable
from typing import Any

import click

from cloudseg.raster.thresholds import THRESHOLD_NAMES

Command = Callable[..., Any]


def together(*options: Command) -> Command:
    """Return a decorator that adds options in their order."""

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _threshold(text: str) -> float | str:
    """Return a probability, or the name of a threshold of the weights.

    Raises:
        BadParameter: it is neither.
    """
    if text in THRESHOLD_NAMES:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither a number nor one of {', '.join(THRESHOLD_NAMES)}.") from error


def cleaning_options(*, default: float | None) -> Command:
    """Return the options of what is done to the mask that a model draws, in the order in which it is done.

    Args:
        default: of the areas and of the width; None: whatever the settings say.
    """
    return together(
        click.option(
            "--threshold",
            type=_threshold,
            metavar="P|careful|generous",
            help="Probability from which a pixel is cloud, instead of the model's; or careful or generous, where the "
            "weights have such a threshold.",
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
