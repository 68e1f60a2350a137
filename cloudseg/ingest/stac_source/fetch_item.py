"""Copy what a scene needs of one item into a folder: whole files, or the windows that an area needs.

Unfinished copies stay in the folder, so an ingest that was killed continues where it ended.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg import keys
from cloudseg.errors import SettingsError
from cloudseg.ingest.candidate import Candidate
from cloudseg.ingest.inbox_file import NotRead
from cloudseg.ingest.stac_source.hosts import Refused
from cloudseg.ingest.stac_source.http_client import HttpClient, Remote, shown
from cloudseg.ingest.stac_source.item_inbox import ItemInbox
from cloudseg.ingest.stac_source.options import StacOptions
from cloudseg.ingest.stac_source.signing import Signer
from cloudseg.ingest.stac_source.tiff_file import NoWindow, read_tiff
from cloudseg.ingest.stac_source.tiff_window import Cut, cut_windows, write_cut
from cloudseg.scratch import cannot_write

_ABANDONED_S: Final = 7 * 86_400
"""Unfinished copies that nobody continued for so long are removed."""
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What will be fetched of one item."""

    fingerprint: str
    """Hash of the item's address, the wanted files and their versions, how they are read, and the area."""
    remotes: dict[str, Remote]
    """By path in the inbox of the item; empty if the item's checksums made asking the server unnecessary."""


def make_plan(signer: Signer, inbox: ItemInbox, scene: Candidate, options: StacOptions) -> Plan:
    """Return what identifies the wanted content. The server is asked only for files whose checksum is not stated.

    Raises:
        Refused: An address is not allowed.
        NotRead: The server does not answer.
    """
    files = [file.path for file in scene.pixel_files()]
    stated = all(inbox.assets[path].checksum for path in files)
    remotes = {} if stated else _probe_all(signer, inbox, files)
    versions = [
        [shown(inbox.assets[path].href), inbox.assets[path].checksum]
        if stated
        else [shown(inbox.assets[path].href), remotes[path].size, remotes[path].validator]
        for path in files
    ]
    reading = [
        [source.bands, [source.radiometry.scale, source.radiometry.offset, source.radiometry.fill]]
        if source.radiometry
        else [source.bands, None]
        for source in scene.files
    ]
    area = None if options.whole else options.search.bounds
    return Plan(keys.sha256_of(keys.canonical_json(["stac", 1, inbox.uri, versions, reading, area])), remotes)


def _probe_all(signer: Signer, inbox: ItemInbox, paths: list[str]) -> dict[str, Remote]:
    return {path: signer.probe(inbox.assets[path].href, inbox.collection) for path in paths}


def fetch_item(
    client: HttpClient,
    signer: Signer,
    inbox: ItemInbox,
    scene: Candidate,
    plan: Plan,
    folder: Path,
    options: StacOptions,
) -> str:
    """Copy the files of a scene into a folder and tell the inbox where they are.

    Returns:
        What was fetched: `whole`, or the window of the first band.

    Raises:
        Refused: The files are larger than allowed, or the area is outside of them.
        NotRead: The server does not answer, or a file has changed.
        StoreUnreachable: The disk is full.
    """
    paths = [file.path for file in scene.pixel_files()]
    remotes = plan.remotes or _probe_all(signer, inbox, paths)
    cuts, fetched = _cuts(client, [remotes[path] for path in paths], options)
    sizes = [cut.size for cut in cuts] if cuts else [remotes[path].size for path in paths]
    if sum(sizes) > options.max_item_bytes:
        raise Refused(
            "the files of the item are larger than allowed",
            subject=inbox.uri,
            found=f"{sum(sizes) >> 20} MB",
            expected=f"at most {options.max_item_bytes >> 20} MB",
            next_step="Give a smaller area, or raise CLOUDSEG_STAC_MAX_ITEM_MB.",
        )
    for index, path in enumerate(paths):
        copy = folder / f"{index}"
        if cuts:
            write_cut(client, cuts[index], copy)
        else:
            _download(client, remotes[path], copy, inbox.assets[path].sha256)
        inbox.set_local(path, copy)
    return fetched


def _cuts(client: HttpClient, remotes: list[Remote], options: StacOptions) -> tuple[list[Cut], str]:
    """Return the windows, none if the files are fetched whole, and the words for the scene's tag."""
    if options.search.bounds is None or options.whole:
        return [], "whole"
    try:
        cuts = cut_windows([read_tiff(client, remote) for remote in remotes], options.search.bounds)
    except NoWindow as error:
        return [], f"whole: {error}"
    except Refused as error:
        subject = error.subject or shown(remotes[0].url)
        raise Refused(error.what, subject=subject, found=error.found, expected=error.expected) from error
    if all(cut.is_whole for cut in cuts):
        return [], "whole"
    window = cuts[0].window
    return cuts, f"rows {window.row_off}+{window.height}, columns {window.col_off}+{window.width}"


def _download(client: HttpClient, remote: Remote, copy: Path, sha256: str | None) -> None:
    """Copy a whole file, continue an earlier copy of the same version, and compare the stated checksum."""
    version = copy.with_suffix(".version")
    now = f"{shown(remote.url)}\n{remote.size}\n{remote.validator}"
    try:
        if not remote.validator or not version.exists() or version.read_text() != now:
            copy.unlink(missing_ok=True)
            version.write_text(now)
    except OSError as error:
        raise cannot_write(copy.parent, error) from error
    client.download(remote, copy)
    if sha256 is not None and (found := _sha256(copy)) != sha256:
        copy.unlink(missing_ok=True)
        raise NotRead(
            "the file has another checksum than its item states",
            subject=shown(remote.url),
            found=found[:12],
            expected=sha256[:12],
            next_step="The next ingest fetches it again; if that does not help, item and file do not belong together.",
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def item_folder(top: Path, fingerprint: str) -> Iterator[Path | None]:
    """Yield the folder of an item's copies, locked; None while another process fetches the same.

    It is removed at the end unless an exception ends the block: then the next ingest continues it.

    Raises:
        SettingsError: The folder cannot be created.
    """
    folder = top / fingerprint[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SettingsError(
            "the folder for unfinished copies cannot be created",
            subject=str(top),
            found=error.strerror,
            next_step="Give the service write access to it, or set CLOUDSEG_STAC_FOLDER.",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def remember_known(top: Path, fingerprint: str, scene_id: str) -> None:
    """Note that an item is a scene that the catalog has from another source, so that it is not fetched again."""
    with suppress(OSError):  # without the note it is fetched again, which is only slow
        _note(top, fingerprint).write_text(scene_id)


def remembered(top: Path, fingerprint: str) -> str | None:
    """Return the scene id of such a note."""
    try:
        return _note(top, fingerprint).read_text()[:100]
    except OSError:
        return None


def _note(top: Path, fingerprint: str) -> Path:
    return top / f"{fingerprint[:32]}.known"


def remove_abandoned(top: Path) -> None:
    """Remove unfinished copies that no ingest has continued for a week."""
    for folder in sorted(top.glob("*")) if top.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink() and time.time() - folder.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)
