"""`cloudseg serve`: one web application that reads. STAC API, tiles, features, files and a map over catalog and store.

It writes nothing, opens nothing that a request names by URL or path, and needs the extra `serve`, not torch.
"""

import warnings

from cloudseg.errors import SettingsError

# stac-fastapi 6.3 takes orjson where it is installed, by a class that FastAPI deprecates.
warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")


def extra_missing(error: ImportError, subject: str) -> SettingsError:
    """Return the error that names the extra to install, where a library of the application is missing."""
    return SettingsError(
        f"{error.name} is not installed",
        subject=subject,
        next_step="Install the extra: pip install 'cloudseg[serve]'.",
    )
