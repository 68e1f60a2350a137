"""The folder of unfinished copies: one process at a time, kept after an error, removed when it is done or abandoned."""

import os
import time
from pathlib import Path

import pytest

from cloudseg.ingest.stac_source.fetch_item import item_folder, remove_abandoned

NAME = "f" * 64


def test_one_process_at_a_time_continues_it(tmp_path: Path) -> None:
    with item_folder(tmp_path, NAME) as folder:
        assert folder is not None
        (folder / "0").write_bytes(b"half")
        with item_folder(tmp_path, NAME) as other:
            assert other is None, "the same copies are written by somebody else"
        assert (folder / "0").read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_what_was_copied(tmp_path: Path) -> None:
    def fail() -> None:
        with item_folder(tmp_path, NAME) as folder:
            assert folder is not None
            (folder / "0").write_bytes(b"half")
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        fail()
    with item_folder(tmp_path, NAME) as folder:
        assert folder is not None
        assert (folder / "0").read_bytes() == b"half"


def test_what_nobody_continued_for_a_week_is_removed(tmp_path: Path) -> None:
    for name, days in (("old", 8), ("new", 6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0").write_bytes(b"half")
        then = time.time() - days * 86_400
        os.utime(tmp_path / name, (then, then))
    (tmp_path / "a.known").write_text("sc-1")
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.known", "new"]
