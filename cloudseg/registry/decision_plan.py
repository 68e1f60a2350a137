"""What a decision of a person would change, checked and in words, before anything is written.

One function for the DAG `cloudseg_decide` and for the page that leads to it, so that both say the same. It reads the
catalog and, for a rollback, the bytes of the earlier champion.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from cloudseg.catalog import Catalog, label_rows, model_rows, quarantine_rows, reader_rows, scene_rows
from cloudseg.catalog.label_rows import StatedLabel, check_step
from cloudseg.catalog.names import get_id, get_weights, list_ids, list_quarantine_ids
from cloudseg.errors import InputError, PromotionRefused, StateError
from cloudseg.records import DecisionName, DecisionPlan, Json, LabelState, ReaderMode, Verdict, Weights
from cloudseg.registry.champion import find_earlier_champion
from cloudseg.registry.decisions import describe_decision, find_blocking_decision
from cloudseg.registry.readers import describe, switch_readers, switch_readers_back
from cloudseg.storage import Store

NEWEST: Final = "newest"
"""Subject of a switch of readers: the newest champion, always."""
MOST: Final = 200
"""Labels or quarantined files that one decision names, at most."""
_NO_WORDS: Final[dict[str, Any]] = {"actor": "", "reason": ""}


@dataclass(frozen=True)
class _Request:
    store: Store
    catalog: Catalog
    decision: DecisionName
    subjects: list[str]
    hold: bool
    force: bool

    def one(self, what: str, hint: str = "") -> str:
        """Return the only subject.

        Raises:
            InputError: there is none, or there are several.
        """
        if len(self.subjects) != 1:
            raise InputError(
                f"the decision {self.decision} needs one subject, {what}",
                subject="subjects",
                found=", ".join(self.subjects) or "nothing",
                expected="one name",
                next_step=hint or "Fill in 'About'.",
            )
        return self.subjects[0]

    def plan(
        self, names: list[str], changes: list[str], arguments: Json, *, asked_by: str | None = None
    ) -> DecisionPlan:
        return DecisionPlan(
            decision=self.decision, names=names, changes=changes, arguments=arguments, asked_by=asked_by
        )


def plan_decision(
    store: Store,
    catalog: Catalog,
    decision: DecisionName,
    subjects: Sequence[str],
    *,
    hold: bool = False,
    force: bool = False,
) -> DecisionPlan:
    """Check a decision and return what it would change; write nothing.

    A decision that was made already is no error: the plan says that nothing changes.

    Args:
        store: read to verify the bytes of an earlier champion.
        catalog: has the subjects.
        decision: what is decided.
        subjects: names that people see. `promote`, `decline`: a model (`v31`, `w-…`). `roll_back`: the champion to
            replace. Labels: ids, or names of scenes that have one label in question. `release`: ids of the quarantine,
            or names of files in it. `switch_readers`: a model or `newest`. `switch_readers_back`: the number of the
            decision to take back.
        hold: of `switch_readers`: keep this model also when the masks of a newer champion are complete.
        force: of `promote`: against the verdict or an earlier rejection; of `switch_readers`: although scenes are lost.

    Raises:
        InputError: a subject is missing, or there are too many, or an option does not belong to the decision.
        NotInCatalog: a subject is unknown.
        StateError: the decision would be refused.
    """
    named = list(dict.fromkeys(name.strip() for name in subjects if name.strip()))
    request = _Request(store, catalog, decision, named, hold, force)
    _check_options(request)
    return _PLANNERS[decision](request)


def _check_options(request: _Request) -> None:
    wrong = [
        name
        for name, given, decisions in (
            ("hold", request.hold, ("switch_readers",)),
            ("force", request.force, ("promote", "switch_readers")),
        )
        if given and request.decision not in decisions
    ]
    if wrong:
        raise InputError(
            f"{' and '.join(wrong)} does not belong to this decision",
            subject=request.decision,
            expected="hold with switch_readers only; force with promote and switch_readers only",
            next_step="Leave it out.",
        )
    if len(request.subjects) > MOST:
        raise InputError(
            "too many subjects for one decision",
            subject=request.decision,
            found=len(request.subjects),
            expected=f"at most {MOST}",
            next_step="Decide in several runs.",
        )


def _promote(request: _Request) -> DecisionPlan:
    with request.catalog.read() as db:
        weights = get_weights(db, request.one("the model to promote, such as v31"))
        champion = model_rows.find_champion(db)
        champion_id = champion.weights_id if champion else None
        generation = champion.generation if champion else 0
        verdict = _verdict_against(db, weights.weights_id, champion_id)
        name, before = _name(weights), _version(db, champion_id)
        asked_by = _asked_by(db, weights.weights_id)
    if weights.weights_id == champion_id:
        changes = [f"Nothing: {name} is the champion already."]
    else:
        if not request.force:
            _check_promotable(request.catalog, name, weights.weights_id, verdict)
        changes = [f"The champion: {name} instead of {before}.", *_describe_verdict(verdict, name, before)]
        if request.force:
            changes.append("Also against the verdict or an earlier rejection; the history says so.")
        changes.append("The DAG cloudseg_predict makes the masks that are missing of the new champion.")
    return request.plan(
        [name],
        changes,
        {"weights_id": weights.weights_id, "force": request.force, "since": generation},
        asked_by=asked_by,
    )


def _check_promotable(catalog: Catalog, name: str, weights_id: str, verdict: Verdict | None) -> None:
    blocking = find_blocking_decision(catalog, weights_id)
    if blocking is not None and blocking.decision == "declined":
        raise PromotionRefused(
            "this model was declined",
            subject=name,
            found=describe_decision(blocking),
            next_step="Set 'Override' to overrule that.",
        )
    if verdict is not None and verdict.outcome != "PROMOTE":
        raise PromotionRefused(
            "the verdict is against a promotion",
            subject=name,
            found=f"{verdict.outcome}: {'; '.join(map(str, verdict.body.get('reasons', [])))}",
            expected="PROMOTE",
            next_step="Decline it, or set 'Override' to overrule the verdict.",
        )


def _decline(request: _Request) -> DecisionPlan:
    with request.catalog.read() as db:
        weights = get_weights(db, request.one("the model to decline, such as v31"))
        champion = model_rows.find_champion(db)
        name, asked_by = _name(weights), _asked_by(db, weights.weights_id)
    if champion is not None and champion.weights_id == weights.weights_id:
        raise PromotionRefused(
            "this model is the champion", subject=name, next_step="Choose the decision roll_back instead."
        )
    blocking = find_blocking_decision(request.catalog, weights.weights_id)
    if blocking is not None and blocking.decision == "declined":
        changes = [f"Nothing: {name} was {describe_decision(blocking)}."]
    else:
        changes = [f"{name} is declined: no unattended run promotes it from now on.", "The champion stays."]
    return request.plan([name], changes, {"weights_id": weights.weights_id}, asked_by=asked_by)


def _asked_by(db: Connection, weights_id: str) -> str | None:
    """Return who requested the approval of weights last, None if nobody did.

    A rejection in between changes nothing: who triggered the training may not overrule it alone either.
    """
    decisions = model_rows.list_decisions(db, weights_id)
    return next((entry.actor for entry in decisions if entry.decision == "asked"), None)


def _roll_back(request: _Request) -> DecisionPlan:
    with request.catalog.read() as db:
        champion = model_rows.find_champion(db)
        current = _version(db, champion.weights_id if champion else None)
        hint = f"The champion is {current}: fill in 'About' with it." if champion else "There is no champion yet."
        named = request.one("the champion to replace", hint)
        if named == "champion":  # repeated, the run would replace the earlier champion as well
            raise InputError("name the champion to replace by its version", subject=named, next_step=hint)
        weights = get_weights(db, named)
        shown, switch = reader_rows.find_shown(db), reader_rows.find_switch(db)
        history = model_rows.list_promotions(db)
    name = _name(weights)
    earlier = find_earlier_champion(request.store, request.catalog, expected_champion=weights.weights_id)
    with request.catalog.read() as db:
        after, seen = _version(db, earlier), _version(db, shown)
    if champion is not None and champion.weights_id == earlier:
        changes = [f"Nothing: {after} replaced {name} already."]
    else:
        made = next((p for p in history if p.weights_id == earlier), None)
        since = f", promoted on {made.created_at:%Y-%m-%d} by {made.actor}" if made else ""
        changes = [f"The champion: {after} again instead of {name}{since}."]
        if switch is not None and switch.mode != "newest":
            changes.append(f"Readers keep seeing the masks of {seen}; that is the decision switch_readers.")
    return request.plan([name], changes, {"champion_id": weights.weights_id})


def _decide_labels(state: LabelState) -> Callable[[_Request], DecisionPlan]:
    def plan(request: _Request) -> DecisionPlan:
        with request.catalog.read() as db:
            chosen = _choose_labels(db, request, state)
            scenes = {s.label.label_id: scene_rows.get_scene(db, s.label.scene_id).name for s in chosen}
        for stated in chosen:
            check_step(stated.label, stated.event, state)
        names = [f"label {s.label.label_id} (version {s.label.version} of {scenes[s.label.label_id]})" for s in chosen]
        changes = [
            f"Nothing: {name} is {state} already." if s.event.state == state else f"{name}: {s.event.state} → {state}."
            for name, s in zip(names, chosen, strict=True)
        ]
        return request.plan(names, changes, {"names": [s.label.label_id for s in chosen]})

    return plan


def _choose_labels(db: Connection, request: _Request, state: LabelState) -> list[StatedLabel]:
    """Return the labels of ids and of names of scenes.

    Raises:
        InputError: nothing is named, or several labels of a scene are in question.
        NotInCatalog: there is no such label or scene.
        StateError: no label of a scene is in question.
    """
    if not request.subjects:
        raise InputError(
            f"the decision {request.decision} needs a label", subject="subjects", next_step="Fill in 'About' with ids."
        )
    found: dict[str, StatedLabel] = {}
    for name in request.subjects:
        if name.startswith("lb-"):
            stated = label_rows.list_stated(db, label_id=get_id(db, "label", name))[0]
        else:
            stated = _label_of_scene(db, name, state)
        found[stated.label.label_id] = stated
    return list(found.values())


def _label_of_scene(db: Connection, name: str, state: LabelState) -> StatedLabel:
    scene_ids = list_ids(db, "scene", name)
    before: LabelState = "accepted" if state == "withdrawn" else "proposed"
    every = label_rows.list_stated(db, scene_ids=scene_ids)
    waiting = [stated for stated in every if stated.event.state == before]
    fitting = waiting or [stated for stated in every if stated.event.state == state]
    if len(fitting) != 1:
        error = InputError if fitting else StateError
        raise error(
            f"{len(fitting) or 'no'} labels of this scene are {before}",
            subject=name,
            found="; ".join(f"{s.label.label_id} {label_rows.describe_event(s.event)}" for s in every) or "no label",
            expected="one label",
            next_step="Name the label by its id (`lb-…`).",
        )
    return fitting[0]


def _release(request: _Request) -> DecisionPlan:
    if not request.subjects:
        raise InputError(
            "the decision release needs ids of the quarantine, or names of files",
            subject="subjects",
            next_step="Fill in 'About'.",
        )
    with request.catalog.read() as db:
        ids = list_quarantine_ids(db, request.subjects)
        found = quarantine_rows.resolve_release(db, ids, same_reason=False)
    waiting = {entry.quarantine_id for entry in found}
    changes = [
        *(f"{entry.name} is read again; it was refused: {entry.what}." for entry in found),
        *(f"Nothing: {name} was released already." for name in ids if name not in waiting),
    ]
    return request.plan([entry.name for entry in found], changes, {"quarantine_ids": ids})


def _switch_readers(request: _Request) -> DecisionPlan:
    target = request.one("the model whose masks readers see, such as v31, or newest")
    with request.catalog.read() as db:
        weights_id = None if target == NEWEST else get_weights(db, target).weights_id
        name = target if weights_id is None else _version(db, weights_id)
    if request.hold and weights_id is None:
        raise InputError(
            "the newest champion changes by itself",
            subject="hold",
            expected="hold with a model",
            next_step="Name a model, or leave hold out.",
        )
    mode: ReaderMode = "newest" if weights_id is None else "hold" if request.hold else "complete"
    switch_readers(
        request.catalog, mode=mode, weights_id=weights_id, incomplete=request.force, dry_run=True, **_NO_WORDS
    )
    until = {
        "newest": "the newest champion, always",
        "hold": f"{name}, until somebody switches",
        "complete": f"{name}, until the masks of a newer champion are complete",
    }[mode]
    changes = [f"Readers see {until}.", *_count_switched(request.catalog, weights_id)]
    return request.plan(
        [name], changes, {"target": weights_id or NEWEST, "hold": request.hold, "incomplete": request.force}
    )


def _switch_readers_back(request: _Request) -> DecisionPlan:
    with request.catalog.read() as db:
        history = reader_rows.list_switches(db)
    newest = next((switch.sequence for switch in history if switch.action == "switch"), None)
    hint = f"The newest is {newest}: fill in 'About' with it." if newest else "No decision was made yet."
    number = request.one("the number of the decision to take back", hint)
    if not number.isdecimal():
        raise InputError(
            "not the number of a decision about readers", subject=number, expected="a whole number", next_step=hint
        )
    switch = switch_readers_back(request.catalog, sequence=int(number), dry_run=True, **_NO_WORDS)
    if switch in history:
        changes = [f"Nothing: decision {number} was taken back already."]
    else:
        with request.catalog.read() as db:
            seen = _version(db, switch.weights_id) if switch.weights_id else "the newest champion, always"
        changes = [f"Readers see {seen} again.", *_count_switched(request.catalog, switch.weights_id)]
    return request.plan([f"decision {number}"], changes, {"sequence": int(number)})


def _count_switched(catalog: Catalog, weights_id: str | None) -> list[str]:
    """Return in words how many scenes a switch changes, and what readers see until then."""
    with catalog.read() as db:
        before, champion = reader_rows.find_shown(db), model_rows.find_champion(db)
        after = weights_id or (champion.weights_id if champion else None)
        now = describe(reader_rows.find_switch(db)).replace(before or "-", _version(db, before))
        if before is None or after is None or before == after:
            return [f"They see {now} now: no mask that they see changes."]
        lost, gained = reader_rows.count_lost(db, before, after), reader_rows.count_lost(db, after, before)
        other = reader_rows.count_masks(db, before) - lost
    return [
        f"They see {now} now: {other} scenes show another mask, {lost} are no longer seen, {gained} are seen newly."
    ]


def _verdict_against(db: Connection, weights_id: str, champion_id: str | None) -> Verdict | None:
    """Return the newest verdict about a challenger against the current champion, None if they were not compared."""
    verdicts = model_rows.list_verdicts(db, challenger_id=weights_id)
    return next((verdict for verdict in verdicts if verdict.champion_id == champion_id), None)


def _describe_verdict(verdict: Verdict | None, name: str, before: str) -> list[str]:
    if verdict is None:
        return [f"{name} is compared with {before} first; nothing changes unless the verdict is PROMOTE."]
    return [f"Verdict {verdict.outcome}: {'; '.join(map(str, verdict.body.get('reasons', [])))}"]


def _name(weights: Weights) -> str:
    return f"v{weights.version}"


def _version(db: Connection, weights_id: str | None) -> str:
    return "no champion" if weights_id is None else _name(model_rows.get_weights(db, weights_id))


_PLANNERS: Final[dict[DecisionName, Callable[[_Request], DecisionPlan]]] = {
    "promote": _promote,
    "decline": _decline,
    "roll_back": _roll_back,
    "accept_label": _decide_labels("accepted"),
    "reject_label": _decide_labels("rejected"),
    "withdraw_label": _decide_labels("withdrawn"),
    "release": _release,
    "switch_readers": _switch_readers,
    "switch_readers_back": _switch_readers_back,
}
