"""Files beside a raster that say how it is read: masks (`.msk`) and metadata of GDAL (`.aux.xml`).

They are attached to their raster here and opened in the decoder process only (`cloudseg.ingest.validity`,
`cloudseg.ingest.pam`).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from cloudseg.errors import BadScene
from cloudseg.ingest.candidate import Candidate, SourceFile, UnmatchedFile
from cloudseg.ingest.inbox_file import Inbox, InboxFile
from cloudseg.ingest.pam import STATEMENTS

_MASK: Final = ".msk"
_PAM: Final = ".aux.xml"
_WORLD: Final = (".tfw", ".tifw", ".tiffw", ".wld", ".j2w", ".jp2w")
_SEARCHED_BYTES: Final = 1 << 20


def with_sidecars(
    items: list[Candidate | UnmatchedFile], files: list[InboxFile], inbox: Inbox
) -> list[Candidate | UnmatchedFile]:
    """Return the items, with the sidecars of every raster of a scene.

    Args:
        items: What the layouts have found.
        files: All files of the inbox.
        inbox: To look into `.aux.xml` files.
    """
    beside = {file.path.lower(): file for file in files if file.path.lower().endswith((_MASK, _PAM, *_WORLD))}
    if not beside:
        return items
    stems = Counter(_stem(file.path) for file in files if not file.path.lower().endswith((_MASK, _PAM, *_WORLD)))

    def attach(source: SourceFile) -> SourceFile:
        path, stem = source.file.path.lower(), _stem(source.file.path)
        # GDAL reads <name>.tif.aux.xml; <name>.aux.xml may belong to any file <name>.
        own = [f"{path}{_PAM}", *([f"{stem}{_PAM}"] if stems[stem] == 1 else [])]
        metadata = next((beside[name] for name in own if name in beside), None)
        mask = beside.get(f"{path}{_MASK}")
        stated = metadata is not None and may_state(inbox, metadata, STATEMENTS)
        world = [beside[f"{stem}{suffix}"] for suffix in _WORLD if f"{stem}{suffix}" in beside]
        return replace(
            source,
            sidecars=tuple(file for file in (mask, metadata if stated else None) if file is not None),
            georeference_beside=tuple(file.name for file in (*world, metadata) if file is not None),
        )

    return [
        replace(item, files=tuple(attach(source) for source in item.files)) if isinstance(item, Candidate) else item
        for item in items
    ]


def _stem(path: str) -> str:
    folder, slash, name = path.lower().rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def may_state(inbox: Inbox, file: InboxFile, elements: Iterable[str]) -> bool:
    """Return whether a `.aux.xml` file may hold more than statistics, which programs write when they show a raster.

    Bytes are searched, nothing is parsed. A file in doubt counts: the decoder reads or refuses it.

    Args:
        inbox: Where the file is.
        file: The file.
        elements: Names of the elements that count, in lower case.
    """
    try:
        with inbox.open(file) as handle:
            text = handle.read(_SEARCHED_BYTES)
    except (BadScene, OSError):
        return True
    return (
        len(text) == _SEARCHED_BYTES or b"\0" in text or any(f"<{name}".encode() in text.lower() for name in elements)
    )
