"""Import what only the extra `gis` installs."""

import importlib
from typing import Any

from cloudseg.errors import SettingsError


def import_extra(module: str) -> Any:
    """Return a module of the extra `gis`.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(
            f"{module.partition('.')[0]} is not installed",
            found=error,
            next_step="Install the extra: pip install 'cloudseg[gis]'.",
        ) from error
