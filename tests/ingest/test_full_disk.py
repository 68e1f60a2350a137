"""A full temporary directory is not blamed on the file that was being copied."""

import errno
from pathlib import Path

import pytest

from cloudseg.errors import StoreUnreachable
from cloudseg.ingest.inbox import FolderInbox
from cloudseg.ingest.inbox_file import hash_file
from tests.ingest.tiles import random_dn, write


def test_a_copy_without_room_says_which_disk_is_full(inbox: Path, tmp_path: Path) -> None:
    write(inbox / "good.tif", random_dn())
    source = FolderInbox(inbox)
    (file,) = source.list_files()
    with pytest.raises(StoreUnreachable, match="the disk of the temporary directory is full") as caught:
        hash_file(source, file, Path("/dev/full"))
    assert caught.value.found == "No space left on device"
    assert "TMPDIR" in caught.value.next_step
    assert getattr(caught.value.__cause__, "errno", None) == errno.ENOSPC
    assert hash_file(source, file, tmp_path / "copy") == hash_file(source, file)
    assert (tmp_path / "copy").read_bytes() == (inbox / "good.tif").read_bytes()
