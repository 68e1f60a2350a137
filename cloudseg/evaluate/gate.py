"""The gate: does the challenger replace the champion? Statistics first, then slices, then a clean process.

PROMOTE: the lower bound of the IoU difference clears the recipe's margin, no judged slice falls by more than its limit,
and a clean process reproduces the golden tile. REJECT: surely worse (upper bound below `reject_below`), worse than a
trivial mask, or not blessed. HOLD: everything between, and whatever is said on too few places to be sure of anything.
The first model must surely beat every trivial mask instead.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.catalog.session import now
from cloudseg.evaluate.clean_process import SmokeTest, run_smoke_test
from cloudseg.evaluate.comparison import GateResult, compare_with_champion, compare_with_trivial_masks
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.table import CountsTable, read_table
from cloudseg.model.device import Device
from cloudseg.publish import publish, stage_object
from cloudseg.recipe import Promotion
from cloudseg.records import Evaluation, Json, Split, Verdict, Weights
from cloudseg.storage import Store

log = logging.getLogger(__name__)
SPLIT: Split = "held_out"
FORMAT: Final = "cloudseg-verdict-1"


def judge(
    store: Store,
    catalog: Catalog,
    *,
    challenger_id: str,
    champion_id: str | None,
    snapshot_id: str,
    promotion: Promotion,
    device: Device,
    ask: Callable[[Store, Weights], SmokeTest] = run_smoke_test,
) -> Verdict:
    """Compare challenger and champion on the held-out chips of a snapshot; store the verdict and return its row.

    Weights that were not judged on these chips yet are judged first. The champion sees the challenger's snapshot with
    its own bands and its own working resolution. The same question gives the same verdict: the draws are seeded by the
    ids and the body holds no time. A question that was answered is not asked again, unless the clean process failed,
    which may have been the machine's fault. `ask` gives the second blessing, by default in a clean process. Nothing is
    promoted here (`cloudseg.registry.promote` does that). Raises what `evaluate_weights` raises.
    """
    if (known := _find_verdict(catalog, challenger_id, champion_id, snapshot_id, promotion)) is not None:
        return known
    judged, table = _evaluated(store, catalog, challenger_id, snapshot_id, device)
    finding = GateResult()
    trivial = compare_with_trivial_masks(table, promotion, finding, is_first=champion_id is None)
    rival: Json = {"champion": None, "difference": None, "slices": []}
    if _has_rival(catalog, challenger_id, champion_id, snapshot_id, finding) and champion_id is not None:
        their_evaluation, theirs = _evaluated(store, catalog, champion_id, snapshot_id, device)
        rival = {"champion": _figures(their_evaluation), **compare_with_champion(table, theirs, promotion, finding)}
    body: Json = {
        "format": FORMAT,
        "challenger_id": challenger_id,
        "champion_id": champion_id,
        "snapshot_id": snapshot_id,
        "split": SPLIT,
        "policy": promotion.model_dump(mode="json"),
        "challenger": _figures(judged),
        **rival,
        "trivial": {name: vars(difference) for name, difference in trivial.items()},
        "blessing": _bless(store, catalog, challenger_id, ask, finding),
    }
    return _publish(store, catalog, body | {"outcome": finding.outcome, "reasons": finding.reasons})


def _find_verdict(
    catalog: Catalog, challenger_id: str, champion_id: str | None, snapshot_id: str, policy: Promotion
) -> Verdict | None:
    """Return the verdict that answers this question already, if its clean process succeeded."""
    wanted = {"format": FORMAT, "snapshot_id": snapshot_id, "policy": policy.model_dump(mode="json")}
    with catalog.read() as db:
        given = [
            v for v in model_rows.list_verdicts(db) if (v.challenger_id, v.champion_id) == (challenger_id, champion_id)
        ]
    fitting = (verdict for verdict in given if all(verdict.body.get(name) == value for name, value in wanted.items()))
    return next((verdict for verdict in fitting if verdict.body["blessing"]["passed"]), None)


def _evaluated(
    store: Store, catalog: Catalog, weights_id: str, snapshot_id: str, device: Device
) -> tuple[Evaluation, CountsTable]:
    evaluation = evaluate_weights(
        store, catalog, weights_id=weights_id, snapshot_id=snapshot_id, split=SPLIT, device=device
    )
    return evaluation, read_table(store, evaluation)


def _figures(evaluation: Evaluation) -> Json:
    names = ("iou", "balanced_accuracy", "scenes", "places")
    found = {name: evaluation.metrics[name] for name in names}
    return {
        "evaluation_id": evaluation.evaluation_id,
        "scene_mean_iou": evaluation.metrics["scene_mean"]["iou"],
        **found,
    }


def _has_rival(
    catalog: Catalog, challenger_id: str, champion_id: str | None, snapshot_id: str, finding: GateResult
) -> bool:
    """Return whether there is a champion that can be judged on the same chips; else say why not."""
    if champion_id is None:
        finding.favour.append("there is no champion yet")
        return False
    if champion_id == challenger_id:
        finding.doubts.append("challenger and champion are the same weights")
        return False
    with catalog.read() as db:
        needed = model_rows.get_weights(db, champion_id).metadata["bands"]
        missing = [band for band in needed if band not in training_rows.get_snapshot(db, snapshot_id).bands]
    if missing:
        finding.doubts.append(
            f"the champion {champion_id} needs bands that snapshot {snapshot_id} lacks ({' '.join(missing)}): the two cannot be "
            "judged on the same pixels; judge on a snapshot with these bands, or let a person decide"
        )
    return not missing


def _bless(
    store: Store, catalog: Catalog, weights_id: str, ask: Callable[[Store, Weights], SmokeTest], finding: GateResult
) -> Json:
    with catalog.read() as db:
        weights = model_rows.get_weights(db, weights_id)
    blessing = ask(store, weights)
    (finding.favour if blessing.passed else finding.against).append(f"clean process: {blessing.reason}")
    return {"passed": blessing.passed, "reason": blessing.reason}


def _publish(store: Store, catalog: Catalog, body: Json) -> Verdict:
    """Store the canonical JSON first, then the row; the id is its hash."""
    body = rounded(body)
    text = keys.canonical_json(body)
    verdict = Verdict(
        verdict_id=keys.id_from_hash("ve", keys.sha256_of(text)),
        challenger_id=body["challenger_id"],
        champion_id=body["champion_id"],
        outcome=body["outcome"],
        body=body,
        created_at=now(),
    )
    log.info("verdict %s: %s, because %s", verdict.verdict_id, verdict.outcome, "; ".join(body["reasons"]))
    objects = {"verdict": stage_object(text, lambda _: keys.verdict(verdict.verdict_id))}
    publish(store, catalog, objects, lambda db, _: model_rows.add_verdict(db, verdict))
    with catalog.read() as db:
        return model_rows.get_verdict(db, verdict.verdict_id)


def rounded(value: Any) -> Any:
    """Return JSON with every float rounded to 6 digits, so that its hash does not hang on the last bit."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value
