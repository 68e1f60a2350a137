"""Malicious input: names that are code, files that change while they are read, folders and pipes called .tif."""

import os
import sqlite3
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import pytest

from cloudseg.ingest import pipeline
from cloudseg.ingest.inbox import FolderInbox
from cloudseg.ingest.inbox_file import InboxFile
from tests.ingest.conftest import Service
from tests.ingest.tiles import clouds, random_dn, write

NAMES = [
    "<script>alert(1)<",
    "'; DROP TABLE scene; --",
    '" OR 1=1 --',
    "%s%n%d {0} ${HOME} $(reboot) `reboot`",
    "雲の画像 ☁️ ünï",
    "..",
    "...",
    "-rf",
    "a#b?c=d&e%20f",
    "x" * 250,
]


def test_names_that_are_code_are_only_names(service: Service, inbox: Path) -> None:
    for index, name in enumerate(NAMES):
        write(inbox / f"{name}.tif", random_dn(seed=index))
        if name[0] != ".":
            write(inbox / "bad" / f"{name}.tif", random_dn(seed=index), crs=None, transform=None)
    hidden = [name for name in NAMES if name.startswith(".")]
    record = service.ingest(inbox, workers=2)
    assert set(service.scenes()) == set(NAMES) - set(hidden)
    assert set(service.quarantine()) == {f"bad_{name}" for name in set(NAMES) - set(hidden)}
    assert len(record.added) == len(NAMES) - len(hidden)
    scene = service.scenes()["a#b?c=d&e%20f"]
    assert scene.source_uri.endswith("/a%23b%3Fc%3Dd%26e%2520f.tif")
    assert service.ingest(inbox, workers=2).known == len(record.added)
    with sqlite3.connect(service.home / "catalog.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("name", "displayed"),
    [
        (b"new\nline.tif", r"new\x0aline.tif"),
        (b"\x1b[2Jclear.tif", r"\x1b[2Jclear.tif"),
        (b"latin\xe9.tif", r"latin\xe9.tif"),
        (b"\xff\xfe.tif", r"\xff\xfe.tif"),
        ("gpj.\u202efit.tif".encode(), r"gpj.\xe2\x80\xaefit.tif"),
        ("zero\u200bwidth.tif".encode(), r"zero\xe2\x80\x8bwidth.tif"),
        ("\ufeffmark.tif".encode(), r"\xef\xbb\xbfmark.tif"),
        ("soft\u00adhyphen.tif".encode(), r"soft\xc2\xadhyphen.tif"),
        ("tag\U000e0061.tif".encode(), r"tag\xf3\xa0\x81\xa1.tif"),
        ("hangul\u3164.tif".encode(), r"hangul\xe3\x85\xa4.tif"),
        ("joiner\u034f.tif".encode(), r"joiner\xcd\x8f.tif"),
        ("selector\ufe0f.tif".encode(), r"selector\xef\xb8\x8f.tif"),
        ("braille\u2800.tif".encode(), r"braille\xe2\xa0\x80.tif"),
    ],
)
def test_names_that_would_deceive_a_terminal_are_quarantined_unread(
    service: Service, inbox: Path, name: bytes, displayed: str
) -> None:
    good = write(inbox / "good.tif", random_dn())
    Path(os.fsdecode(os.fsencode(inbox) + b"/" + name)).write_bytes(good.read_bytes()[:100])
    (inbox / os.fsdecode(b"folder\xff")).mkdir()
    (inbox / os.fsdecode(b"folder\xff") / "inside.tif").write_bytes(good.read_bytes())
    service.ingest(inbox)
    entries = service.quarantine()
    assert set(service.scenes()) == {"good"}
    assert set(entries) == {displayed, "inside.tif"}
    assert "not valid UTF-8" in entries[displayed].what
    assert all(entry.source_uri.isprintable() for entry in entries.values())
    assert service.ingest(inbox).still_quarantined == 2


def test_a_name_with_a_nul_cannot_be_a_source(service: Service, inbox: Path) -> None:
    from cloudseg.errors import InputError

    with pytest.raises(InputError, match="no such folder"):
        service.ingest(f"{inbox}\0x")


def test_folders_pipes_and_sockets_called_tif(service: Service, inbox: Path) -> None:
    write(inbox / "folder.tif" / "inside.tif", random_dn())
    (inbox / "empty.tif").mkdir()
    os.mkfifo(inbox / "pipe.tif")
    (inbox / "images").mkdir()
    os.mkfifo(inbox / "images" / "a.tif")
    write(inbox / "labels" / "a.tif", clouds(), names=["label"])
    service.ingest(inbox)
    assert set(service.scenes()) == {"inside"}
    assert sorted(service.quarantine()) == ["a.tif", "pipe.tif"]


class Vanishing(FolderInbox):
    """Files called gone_* are deleted after so many openings, those called grows_* get longer."""

    openings = 1

    def open(self, file: InboxFile) -> AbstractContextManager[IO[bytes]]:
        return self._open(file)

    @contextmanager
    def _open(self, file: InboxFile):  # type: ignore[no-untyped-def]
        with super().open(file) as handle:
            yield handle
        self.seen[file.path] = self.seen.get(file.path, 0) + 1
        path = self.root / file.path
        if file.name.startswith("gone") and self.seen[file.path] == self.openings:
            path.unlink()
        if file.name.startswith("grows"):
            path.write_bytes(path.read_bytes() + b"more")

    @property
    def seen(self) -> dict[str, int]:
        return self.__dict__.setdefault("_seen", {})


@pytest.mark.parametrize("openings", [1, 2])
def test_files_that_vanish_or_grow_during_ingest(
    service: Service, inbox: Path, openings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "open_inbox", lambda source, *_: Vanishing(Path(source)))
    monkeypatch.setattr(Vanishing, "openings", openings)
    write(inbox / "images" / "gone.tif", random_dn())
    write(inbox / "labels" / "gone.tif", clouds(), names=["label"], nodata=255)
    write(inbox / "grows.tif", random_dn(seed=1))
    write(inbox / "good.tif", random_dn(seed=2))
    service.ingest(inbox)
    entries = service.quarantine()
    assert "changed while it was read" in entries["grows"].what
    if openings == 1:  # between hashing and copying
        assert "cannot be read" in entries["gone"].what
        assert set(service.scenes()) == {"good"}
    else:
        assert set(service.scenes()) == {"good", "gone"}
    monkeypatch.undo()
    write(inbox / "images" / "gone.tif", random_dn())
    write(inbox / "labels" / "gone.tif", clouds(), names=["label"], nodata=255)
    service.ingest(inbox)
    assert set(service.scenes()) == {"good", "gone", "grows"}
    assert len(service.labels(service.scenes()["gone"])) == 1
    assert service.quarantine() == {}


def test_a_file_and_a_folder_without_read_permission(service: Service, inbox: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything: permissions cannot be tested as root")
    write(inbox / "closed.tif", random_dn()).chmod(0)
    write(inbox / "closed_folder" / "inside.tif", random_dn())
    (inbox / "closed_folder").chmod(0)
    try:
        service.ingest(inbox)
    finally:
        (inbox / "closed_folder").chmod(0o700)
    entries = service.quarantine()
    assert "cannot be read" in entries["closed"].what
    assert "cannot be listed" in entries["closed_folder"].what


def test_text_inside_a_file_cannot_move_the_cursor(service: Service, inbox: Path) -> None:
    write(inbox / "a.tif", random_dn(), names=["\x1b[2J\x1b]0;owned\x07", "x" * 5000, "B03"])
    service.ingest(inbox)
    entry = service.quarantine()["a"]
    assert entry.found is not None
    assert entry.found.isprintable()
    assert len(entry.found) <= 600
