"""A worklist that comes back: its pictures and masks are no scenes, its labels are read."""

import logging
from pathlib import Path

import pytest

from cloudseg.ingest.inbox import FolderInbox, StoreInbox
from cloudseg.ingest.layouts import find_candidates
from cloudseg.storage import LocalStore
from tests.tiny_world import draw, tif_bytes

SCENE = "sc-00000000000000000001"


def make_folder(top: Path) -> None:
    """Write the files of a worklist of one scene, with a mask as its label, as `cloudseg worklist --out` names them."""
    image, label = draw(1, (32, 32))
    for name, content in (
        ("worklist.json", b"{}"),
        ("worklist.qgs", b"<qgis/>"),
        ("worklist.qgs~", b"<qgis/>"),
        ("worklist_attachments.zip", b"PK"),
        ("README.md", b"read me"),
        ("labels.qml", b"<qgis/>"),
        (f"layers/{SCENE}/rgb.tif", tif_bytes(image, ("red", "green", "blue"))),
        (f"layers/{SCENE}/mask.tif", tif_bytes(label[None], ("cloud",))),
        (f"labels/{SCENE}.tif", tif_bytes(label[None], ("cloud",))),
    ):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("below", ["", "ada/monday"])
def test_only_the_labels_of_a_worklist_are_read(tmp_path: Path, below: str, caplog: pytest.LogCaptureFixture):
    make_folder(tmp_path / below)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.tif").write_bytes(tif_bytes(draw(2, (32, 32))[0], ("red", "green", "blue")))
    with caplog.at_level(logging.INFO):
        found = [item.path for item in find_candidates(FolderInbox(tmp_path))]
    prefix = f"{below}/" if below else ""
    # A scene beside the list is read even where the list was unpacked at the top of the inbox.
    assert found == sorted([f"{prefix}labels/{SCENE}.tif", "other/a.tif"])
    assert f"{below or 'the inbox'} is a worklist: 6 files that were made to be looked at are not read" in caplog.text


def test_a_folder_without_the_marks_of_a_worklist_is_read_as_ever(tmp_path: Path):
    make_folder(tmp_path)
    (tmp_path / "worklist.qgs").unlink()
    assert f"layers/{SCENE}/rgb.tif" in [item.path for item in find_candidates(FolderInbox(tmp_path))]


def test_a_worklist_in_a_prefix_of_the_store_is_read_the_same_way(store: LocalStore):
    image, label = draw(1, (32, 32))
    for name, content in (
        ("worklist.json", b"{}"),
        ("worklist.qgs", b"<qgis/>"),
        (f"layers/{SCENE}/rgb.tif", tif_bytes(image, ("red", "green", "blue"))),
        (f"labels/{SCENE}.tif", tif_bytes(label[None], ("cloud",))),
    ):
        store.put(f"inbox/list/{name}", content)
    assert [item.path for item in find_candidates(StoreInbox(store, "inbox"))] == [f"list/labels/{SCENE}.tif"]
