"""Stages: a backup of each date with a number of copies kept, and the rehearsal of a restore.

Each copy is a whole backup, a folder named by its date below CLOUDSEG_BACKUP_FOLDER. Objects that the copy before has
are hard links to the same files, so a copy costs what is new since then; and what a copy holds does not depend on the
others. A copy is made under another name and renamed when it is complete.
"""

import datetime
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from cloudseg.catalog import Catalog
from cloudseg.errors import InputError, SettingsError
from cloudseg.keys import REPLACED
from cloudseg.records import Json
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.scratch import scratch_directory
from cloudseg.stages import log
from cloudseg.stages.backup import back_up_to, restore_into
from cloudseg.stages.references import iter_named
from cloudseg.storage import LocalStore

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.A)
_UNFINISHED: Final = ".unfinished-"
_REMOVED: Final = ".removed-"
MOST_COPIES: Final = 366
_SUNDAY: Final = 7


def dated_backup(date: str, *, keep: int = 7) -> Json:
    """Make the backup of a date, unless it is there, and delete the oldest copies.

    A call for a date whose copy is complete makes nothing again. A copy that was killed is continued.

    Args:
        date: `YYYY-MM-DD`, the logical date of a DAG run.
        keep: how many copies are kept, this one included.

    Returns:
        The folder, whether it was there before, and the record of `backup`; `kept` and `removed`, dates of copies. Or
        `skip`, the reason why none was made: the settings name no folder.

    Raises:
        InputError: not a date, or not a number of copies; the folder of the settings is missing, as on a disk that is
            not mounted.
    """
    if not _DATE.fullmatch(date):
        raise InputError("not the date of a backup", subject="date", found=date, expected="YYYY-MM-DD")
    if not 1 <= keep <= MOST_COPIES:
        raise InputError("not a number of copies", subject="keep", found=keep, expected=f"1 to {MOST_COPIES}")
    if (root := _folder()) is None:
        return {"skip": "CLOUDSEG_BACKUP_FOLDER is not set: no backup is made"}
    _check_folder(root)
    record: Json = {}
    copy = root / date
    if not (existed := copy.is_dir()):
        before = [name for name in _dates(root) if name < date]
        unfinished = root / f"{_UNFINISHED}{date}"
        record = back_up_to(unfinished, earlier=root / before[-1] / "store" if before else None)
        unfinished.rename(copy)
    removed = _dates(root)[:-keep]
    for name in removed:
        (root / name).rename(root / f"{_REMOVED}{name}")
    for path in root.iterdir():  # those of an earlier call that was killed, too
        if path.name.startswith(_REMOVED) or (path.name.startswith(_UNFINISHED) and not path.name.endswith(date)):
            shutil.rmtree(path)
    found = record | {"skip": None, "folder": str(copy), "existed": existed, "kept": _dates(root), "removed": removed}
    log.ended("dated_backup", found)
    return found


def rehearse_restore(
    date: str | None = None, *, folder: str | None = None, when: Literal["always", "weekly", "never"] = "always"
) -> Json:
    """Restore a backup into a temporary home, compare every object and the number of rows, and measure it.

    Args:
        date: of a copy below CLOUDSEG_BACKUP_FOLDER; None: the newest one.
        folder: a backup anywhere else, instead.
        when: weekly: only if the date is a Sunday.

    Returns:
        The folder, rows, objects and bytes, and the seconds that restoring and comparing took. Or `skip`, the reason
        why it is not rehearsed.

    Raises:
        InputError: there is no such backup.
        ObjectMissing: the backup lacks an object that a row names.
        ObjectCorrupt: an object does not match its checksum.
        SettingsError: the settings name no folder.
    """
    if when == "never" or (when == "weekly" and date and datetime.date.fromisoformat(date).isoweekday() != _SUNDAY):
        return {"skip": f"the restore is rehearsed {when}"}
    backup = Path(folder).expanduser().absolute() if folder else _copy_of(date)
    if not (backup / "catalog.db").is_file():
        raise InputError("this folder holds no backup", subject=str(backup), expected="catalog.db and store/")
    log.started("rehearse_restore", folder=str(backup))
    with scratch_directory("restore") as home:
        runtime = _home(home)
        began = time.monotonic()
        restored = restore_into(runtime, backup)
        restored_s = time.monotonic() - began
        began = time.monotonic()
        objects, size = _compare(runtime)
        verified_s = time.monotonic() - began
        runtime.catalog.engine.dispose()
    record: Json = {
        "skip": None,
        "folder": str(backup),
        "rows": sum(restored["rows"].values()),
        "objects": objects,
        "bytes": size,
        "restore_s": round(restored_s, 1),
        "verify_s": round(verified_s, 1),
    }
    log.ended("rehearse_restore", record)
    return record


def _compare(runtime: Runtime) -> tuple[int, int]:
    """Compare every object with the checksum of its row; return how many there are, and their bytes.

    Raises:
        ObjectMissing: a row names an object that is not there.
        ObjectCorrupt: an object does not match its checksum.
    """
    sizes: dict[str, int] = {}
    for key, sha256 in iter_named(runtime.catalog, runtime.store):
        if key not in REPLACED:  # derived from rows, and there only after a first promotion
            with runtime.store.local_file(key, sha256) as path:
                sizes[key] = path.stat().st_size
    return len(sizes), sum(sizes.values())


def _folder() -> Path | None:
    folder = open_runtime().settings.backup_folder
    return folder.expanduser().absolute() if folder else None


def _check_folder(root: Path) -> None:
    """Refuse a folder that is not there. Made anew, it would lie on the disk of a mount point and fill that."""
    if not root.is_dir():
        raise InputError(
            "the folder of the backups is missing",
            subject="CLOUDSEG_BACKUP_FOLDER",
            found=f"no folder {root}",
            expected="a folder on a disk that is mounted",
            next_step="Mount its disk. For the first backup, make the folder.",
        )


def _dates(root: Path) -> list[str]:
    """Return the dates of the complete copies, oldest first."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and _DATE.fullmatch(path.name))


def _copy_of(date: str | None) -> Path:
    if (root := _folder()) is None:
        raise SettingsError(
            "no folder for backups is set",
            subject="CLOUDSEG_BACKUP_FOLDER",
            next_step="Set it to a folder on another disk than the store.",
        )
    dates = _dates(root) if root.is_dir() else []
    if not dates or (date is not None and date not in dates):
        raise InputError(
            "there is no such backup", subject=date or str(root), found=", ".join(dates) or "none", expected="a date"
        )
    return root / (date or dates[-1])


def _home(folder: Path) -> Runtime:
    """Return an empty embedded home."""
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    catalog.upgrade()
    store = LocalStore(folder / "store")
    return replace(open_runtime(), store=store, catalog=catalog, inbox=str(folder / "inbox"), home=folder)
