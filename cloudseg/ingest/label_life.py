"""What a label is when it arrives, accepted or proposed, and what to say about one that is known already.

The first label of a scene is accepted at once if the operator trusts its inbox. A correction waits for a person: it
changes a label that is in use or proposed, or contradicts a mask that is published.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Connection

from cloudseg.catalog import label_rows
from cloudseg.catalog.label_rows import StatedLabel, describe_event
from cloudseg.catalog.model_rows import find_mask_by_id, find_mask_of_scene
from cloudseg.records import Label, LabelState

EVERY_INBOX: Final = "*"


class FirstState(NamedTuple):
    """The first state of a label."""

    state: LabelState
    reason: str


def is_trusted(uri: str, prefixes: Sequence[str]) -> bool:
    """Return whether a file lies below a trusted prefix; `/data/in` does not cover `/data/in-public`.

    Args:
        uri: of the file: `file:///…`, `store://…` or `s3://…`.
        prefixes: URIs or paths of folders, or `*` for every inbox.
    """
    return any(prefix == EVERY_INBOX or _is_below(uri, prefix) for prefix in prefixes)


def _is_below(uri: str, prefix: str) -> bool:
    folder = (prefix if "://" in prefix else Path(prefix).expanduser().resolve().as_uri()).rstrip("/")
    return uri == folder or uri.startswith(f"{folder}/")


def find_corrected_mask(db: Connection, scene_id: str, mask_id: str | None) -> str | None:
    """Return the id of the mask that a decoder names as the one that was edited, None if this scene has no such mask.

    A decoder reads the id from a file, which may claim anything.
    """
    mask = find_mask_by_id(db, mask_id) if mask_id is not None else None
    return mask.mask_id if mask is not None and mask.scene_id == scene_id else None


def find_first_state(db: Connection, scene_id: str, corrects_mask_id: str | None, *, trusted: bool) -> FirstState:
    """Return the state in which a new label begins, with the reason for its history.

    Call it with the scene's labels locked (`label_rows.lock_labels`), in the transaction that adds the label: of two
    first labels that arrive at the same time one is a correction of the other.

    Args:
        db: that transaction.
        scene_id: the label's scene.
        corrects_mask_id: the mask that was edited to make the label (`find_corrected_mask`).
        trusted: whether the operator trusts its inbox.
    """
    if corrects_mask_id is not None:
        return FirstState("proposed", f"corrects mask {corrects_mask_id}")
    live = [s for s in label_rows.list_of_scene(db, scene_id) if s.event.state in ("accepted", "proposed")]
    if live:
        newest = live[-1]
        return FirstState(
            "proposed", f"changes version {newest.label.version} ({newest.event.state}), {newest.label.label_id}"
        )
    if (mask := find_mask_of_scene(db, scene_id)) is not None:
        return FirstState("proposed", f"its scene has a published mask, {mask.mask_id}")
    if not trusted:
        return FirstState("proposed", "its inbox is not in CLOUDSEG_TRUSTED_INBOXES")
    return FirstState("accepted", "first label of its scene")


def note_added(label: Label, scene_name: str, reason: str) -> str:
    """Return what an ingest says about a new label that waits."""
    return (
        f"label {label.label_id}, version {label.version} of {scene_name}, waits: {reason}. "
        f"To look at it: cloudseg labels diff {label.label_id} --out diff.png; to take it: "
        f"cloudseg labels accept {label.label_id}"
    )


def note_known(db: Connection, label_id: str, scene_id: str, scene_name: str) -> str | None:
    """Return what an ingest says about a label that it has met before: why that file changes nothing.

    None where nothing needs to be said: it is accepted and no newer label of its scene is.
    """
    labels = label_rows.list_of_scene(db, scene_id)
    own = next(stated for stated in labels if stated.label.label_id == label_id)
    known = f"label {label_id} is known: version {own.label.version} of {scene_name}, "
    if own.event.state == "proposed":
        return f"{known}which waits for a decision: cloudseg labels accept {label_id}"
    if own.event.state != "accepted":
        return (
            f"{known}{describe_event(own.event)}; it does not come back by itself, "
            f"cloudseg labels accept {label_id} reinstates it"
        )
    newer = [s for s in labels if s.event.state == "accepted" and s.label.version > own.label.version]
    return f"{known}{_covered(newer)}" if newer else None


def _covered(newer: Sequence[StatedLabel]) -> str:
    by = " and ".join(
        f"version {s.label.version} ({s.label.label_id}, accepted {s.event.created_at:%Y-%m-%d} by {s.event.actor})"
        for s in newer
    )
    back = " ".join(s.label.label_id for s in newer)
    return f"covered by {by}; to return to it: cloudseg labels withdraw {back} --reason …"
