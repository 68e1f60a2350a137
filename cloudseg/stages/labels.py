"""Stages: list labels, show one with its history, draw what one changes, and accept, reject or withdraw them."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Connection

from cloudseg.catalog import label_rows, scene_rows, training_rows
from cloudseg.catalog.label_rows import StatedLabel, describe_event
from cloudseg.catalog.names import get_id, list_ids
from cloudseg.errors import InputError, StateError
from cloudseg.records import Json, Label, LabelDecisionRecord, LabelState, Scene
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log
from cloudseg.storage import whole_object

_LABEL_PREFIX = "lb-"


def labels(
    *, state: LabelState | None = None, scene: str | None = None, source: str | None = None, limit: int | None = 20
) -> list[Json]:
    """List labels with their state, the newest decision first.

    Args:
        state: only labels in this state.
        scene: only labels of this scene, by id or name.
        source: only labels of this source.
        limit: maximum number of labels.

    Raises:
        NotInCatalog: there is no such scene.
    """
    with open_runtime().catalog.read() as db:
        scene_ids = None if scene is None else _scene_ids(db, scene)
        found = label_rows.list_stated(db, state=state, scene_ids=scene_ids, source=source, limit=limit)
        return [_row(db, stated) for stated in found]


def label(label_id: str) -> Json:
    """Return a label with its whole history, what it corrects, and what its scene's label consists of.

    Returns:
        The label's row and state; `events`, oldest first; `in_use`, the accepted labels of the scene, oldest first;
        `snapshots`, those that hold the label.

    Raises:
        NotInCatalog: there is no such label.
    """
    with open_runtime().catalog.read() as db:
        label_id = get_id(db, "label", label_id)
        stated = _get(db, label_id)
        in_use = label_rows.list_accepted_of(db, stated.label.scene_id)
        return {
            **_row(db, stated),
            "class_mapping": stated.label.class_mapping,
            "source_uri": stated.label.source_uri,
            "source_sha256": stated.label.source_sha256,
            "key": stated.label.key,
            "sha256": stated.label.sha256,
            "events": [event.as_json() for event in label_rows.list_events(db, label_id)],
            "in_use": [{"label_id": entry.label_id, "version": entry.version} for entry in in_use],
            "snapshots": training_rows.list_snapshots_of_label(db, label_id),
        }


def diff_label(label_id: str, out: str) -> Json:
    """Draw what a label changes in the label of its scene: RGB, before and after side by side, as a PNG file.

    Before is the overlay of the scene's accepted labels without this one, after the overlay with it, whatever its state
    is. The window of the change is enlarged.

    Args:
        label_id: the label.
        out: path of the file; an existing one is replaced.

    Returns:
        The file, the window and the number of pixels by change (`clear to cloud`, `none to clear` …).

    Raises:
        NotInCatalog: there is no such label.
        InputError: the file cannot be written.
        ObjectCorrupt: the scene or a label is not what was ingested.
    """
    from cloudseg.raster.label_diff import draw_label_diff

    runtime = open_runtime()
    with runtime.catalog.read() as db:
        label_id = get_id(db, "label", label_id)
        stated = _get(db, label_id)
        scene = scene_rows.get_scene(db, stated.label.scene_id)
        in_use = label_rows.list_accepted_of(db, scene.scene_id)
    before = [entry for entry in in_use if entry.label_id != label_id]
    after = sorted([*before, stated.label], key=lambda entry: entry.version)
    words = (
        f"{scene.name}, RGB",
        f"before: {_versions(before)}",
        f"after: {_versions(after)} ({stated.label.version} is {stated.event.state})",
    )
    with ExitStack() as stack:

        def open_object(row: Scene | Label, owner: str) -> str:
            return str(stack.enter_context(whole_object(runtime.store, row, owner)))

        labels = {entry.label_id: open_object(entry, f"label {entry.label_id}") for entry in after}
        drawn = draw_label_diff(
            open_object(scene, f"scene {scene.scene_id}"),
            [labels[entry.label_id] for entry in before],
            [labels[entry.label_id] for entry in after],
            words,
        )
    file = _write(Path(out), drawn.png)
    record: Json = {
        "label_id": label_id,
        "scene": scene.name,
        "before": [entry.label_id for entry in before],
        "after": [entry.label_id for entry in after],
        "changed": drawn.changed,
        "changed_pixels": sum(drawn.changed.values()),
        "window": {
            "row_off": drawn.window.row_off,
            "col_off": drawn.window.col_off,
            "height": drawn.window.height,
            "width": drawn.window.width,
        },
        "file": str(file),
    }
    log.ended("diff_label", record)
    return record


def accept_labels(
    names: Sequence[str] = (),
    *,
    source: str | None = None,
    state: LabelState | None = None,
    actor: str = "cli",
    reason: str = "",
    dry_run: bool = False,
) -> LabelDecisionRecord:
    """Accept labels: those that wait, or, named by id, rejected and withdrawn ones, which are reinstated.

    Args:
        names: ids of labels, or ids or names of scenes: their labels that wait.
        source: without names: every label of this source that waits.
        state: choose labels in this state instead of those that wait; without names and source: all of them.
        actor: who decides, for the history.
        reason: why, for the history.
        dry_run: check everything, change nothing.

    Raises:
        InputError: nothing was chosen, or a name is not unique.
        NotInCatalog: there is no such label or scene.
        StateError: a label is in a state from which the step is not allowed, or none is in the wanted state.
    """
    return _decide(
        "accepted", "proposed", names, source=source, state=state, actor=actor, reason=reason, dry_run=dry_run
    )


def reject_labels(
    names: Sequence[str] = (),
    *,
    source: str | None = None,
    state: LabelState | None = None,
    actor: str = "cli",
    reason: str,
    dry_run: bool = False,
) -> LabelDecisionRecord:
    """Reject labels that wait; they stay in the catalog and never enter a snapshot. Arguments as in `accept_labels`.

    Raises:
        InputError: as in `accept_labels`, or there is no reason.
        NotInCatalog: as in `accept_labels`.
        StateError: as in `accept_labels`.
    """
    return _decide(
        "rejected", "proposed", names, source=source, state=state, actor=actor, reason=reason, dry_run=dry_run
    )


def withdraw_labels(
    names: Sequence[str] = (),
    *,
    source: str | None = None,
    state: LabelState | None = None,
    actor: str = "cli",
    reason: str,
    dry_run: bool = False,
) -> LabelDecisionRecord:
    """Withdraw accepted labels: the label of their scene is what it was without them. Arguments as in `accept_labels`.

    Raises:
        InputError: as in `accept_labels`, or there is no reason, or the scene has several accepted labels.
        NotInCatalog: as in `accept_labels`.
        StateError: as in `accept_labels`.
    """
    return _decide(
        "withdrawn", "accepted", names, source=source, state=state, actor=actor, reason=reason, dry_run=dry_run
    )


def _decide(
    wanted: LabelState,
    before: LabelState,
    names: Sequence[str],
    *,
    source: str | None,
    state: LabelState | None,
    actor: str,
    reason: str,
    dry_run: bool,
) -> LabelDecisionRecord:
    """Bring the chosen labels into a state; each is a transaction, so a repeated call completes an interrupted one."""
    log.started(wanted, names=list(names), source=source, state=state, actor=actor, reason=reason, dry_run=dry_run)
    if wanted != "accepted" and not reason.strip():
        raise InputError(f"a label is {wanted} for a reason", subject=", ".join(names), next_step="Pass --reason.")
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        chosen = _choose(db, names, source, state, default=before, one_of_scene=wanted == "withdrawn")
    for label, event in chosen:
        label_rows.check_step(label, event, wanted)
    changed = [
        label.label_id
        for label, event in chosen
        if event.state != wanted and (dry_run or _add_event(runtime, label, wanted, event.state, actor, reason))
    ]
    with runtime.catalog.read() as db:
        record = LabelDecisionRecord(
            state=wanted,
            changed=changed,
            unchanged=[label.label_id for label, _ in chosen if label.label_id not in changed],
            waiting=label_rows.count_in_state(db, "proposed"),
            notes=[] if dry_run else [_note(db, scene_id) for scene_id in sorted({c.label.scene_id for c in chosen})],
        )
    log.ended(wanted, record)
    return record


def _add_event(
    runtime: Runtime, label: Label, state: LabelState, expected: LabelState, actor: str, reason: str
) -> bool:
    with runtime.catalog.begin() as db:
        return label_rows.add_event(db, label, state, actor=actor, reason=reason.strip(), expected=expected)


def _choose(
    db: Connection,
    names: Sequence[str],
    source: str | None,
    state: LabelState | None,
    *,
    default: LabelState,
    one_of_scene: bool,
) -> list[StatedLabel]:
    """Return the labels that the arguments choose, each once, oldest version first.

    Raises:
        InputError: nothing was chosen, or a name is not unique.
        NotInCatalog: there is no such label or scene.
        StateError: no label is in the wanted state.
    """
    if not names and source is None and state is None:
        raise InputError(
            "no label was chosen",
            subject="labels",
            expected="ids of labels, ids or names of scenes, a source, or a state",
            next_step="`cloudseg labels list` lists the labels; `--source` and `--state` choose all that fit.",
        )
    wanted = state or default
    found = [] if names else label_rows.list_stated(db, state=wanted, source=source)
    for name in names:
        if name.startswith(_LABEL_PREFIX):
            found.append(_get(db, get_id(db, "label", name)))
        else:
            found += _choose_of_scene(db, name, source, wanted, one=one_of_scene)
    if not found:
        raise StateError(f"no label is {wanted}", subject=source or "labels", next_step=_LIST)
    unique = {stated.label.label_id: stated for stated in found}
    return sorted(unique.values(), key=lambda stated: (stated.label.scene_id, stated.label.version))


_LIST = "`cloudseg labels list` shows the state of each."


def _choose_of_scene(
    db: Connection, name: str, source: str | None, state: LabelState, *, one: bool
) -> list[StatedLabel]:
    scene_ids = _scene_ids(db, name)
    every = label_rows.list_stated(db, scene_ids=scene_ids, source=source)
    found = [stated for stated in every if stated.event.state == state]
    if not found:
        states = "; ".join(f"{s.label.label_id} {describe_event(s.event)}" for s in every) or "none"
        raise StateError(f"no label of this scene is {state}", subject=name, found=states, next_step=_LIST)
    ambiguous = len({stated.label.scene_id for stated in found}) > 1 or (one and len(found) > 1)
    if ambiguous:
        raise InputError(
            f"several labels fit this name, of {len({s.label.scene_id for s in found})} scenes",
            subject=name,
            found=", ".join(
                f"{s.label.label_id} (version {s.label.version} of {s.label.scene_id})"
                for s in sorted(found, key=lambda s: (s.label.scene_id, s.label.version))
            ),
            next_step="Name the label by its id.",
        )
    return found


def _scene_ids(db: Connection, name: str) -> list[str]:
    """Return the ids of the scenes of an id or a name.

    Raises:
        NotInCatalog: there is none.
    """
    return list_ids(db, "scene", name)


def _get(db: Connection, label_id: str) -> StatedLabel:
    """Return a label with its state.

    Raises:
        NotInCatalog: there is no such label.
    """
    scene_rows.get_label(db, label_id)
    return label_rows.list_stated(db, label_id=label_id)[0]


def _row(db: Connection, stated: StatedLabel) -> Json:
    label, event = stated
    return {
        "label_id": label.label_id,
        "scene": scene_rows.get_scene(db, label.scene_id).name,
        "version": label.version,
        "state": event.state,
        "actor": event.actor,
        "reason": event.reason,
        "decided_at": event.as_json()["created_at"],
        "source": label.source,
        "cloud_fraction": label.cloud_fraction,
        "labelled_fraction": label.labelled_fraction,
        "corrects_mask_id": label.corrects_mask_id,
        "scene_id": label.scene_id,
        "created_at": label.as_json()["created_at"],
    }


def _note(db: Connection, scene_id: str) -> str:
    """Return what the label of a scene consists of now, or how to get one back."""
    name, in_use = scene_rows.get_scene(db, scene_id).name, label_rows.list_accepted_of(db, scene_id)
    if in_use:
        return f"{name}: {_versions(in_use)} in use"
    withdrawn = [s.label for s in label_rows.list_of_scene(db, scene_id) if s.event.state == "withdrawn"]
    back = f"; cloudseg labels accept {withdrawn[-1].label_id} reinstates version {withdrawn[-1].version}"
    return f"{name}: no label in use{back if withdrawn else ''}"


def _versions(entries: Sequence[Label]) -> str:
    """Return versions in words: `version 1`, `versions 1, 2`, `no label`."""
    if not entries:
        return "no label"
    numbers = ", ".join(str(entry.version) for entry in entries)
    return f"version{'s' if len(entries) > 1 else ''} {numbers}"


def _write(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    path = path.expanduser().absolute()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InputError(
            "the picture cannot be written",
            subject=str(path),
            found=error.strerror,
            next_step="Pass a file in a folder that exists and can be written.",
        ) from error
    return path
