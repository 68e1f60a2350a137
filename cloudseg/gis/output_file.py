"""A file of the user's choice that appears complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudseg.errors import InputError


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check early that a file can be written.

    Raises:
        InputError: its folder is missing, or it exists and is not to be overwritten.
    """
    if not path.parent.is_dir():
        raise InputError("the folder does not exist", subject=str(path.parent), next_step="Create it.")
    if path.is_dir():
        raise InputError("this is a folder", subject=str(path), expected="the name of a file")
    if path.exists() and not overwrite:
        raise InputError(
            "the file exists", subject=str(path), next_step="Choose another name, or replace it with --overwrite."
        )


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces `path` at the end, and is removed after an error.

    Raises:
        InputError: the file cannot be written.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise InputError("the file cannot be written", subject=str(path), found=error.strerror or error) from error
    finally:
        part.unlink(missing_ok=True)
