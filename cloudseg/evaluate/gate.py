"""The gate decides whether a challenger replaces the champion: statistics, then slices, then a smoke test.

PROMOTE: the lower bound of the IoU difference exceeds the recipe's margin, no compared slice falls by more than its
limit, and a clean process reproduces the golden sample. REJECT: significantly worse (upper bound below `reject_below`),
worse than a trivial mask, or the smoke test failed. HOLD: everything else, such as a comparison on too few places to be
significant. The first model must be significantly better than every trivial mask instead.
"""

import logging
from collections.abc import Callable

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.catalog.session import now
from cloudseg.evaluate.clean_process import SmokeTest, run_smoke_test
from cloudseg.evaluate.comparison import GateResult, compare_with_champion, compare_with_trivial_masks
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.table import CountsTable, read_table, rounded
from cloudseg.model.device import Device
from cloudseg.publish import publish, stage_object
from cloudseg.recipe import PromotionPolicy
from cloudseg.records import Evaluation, Json, Split, Verdict, Weights
from cloudseg.registry.verdicts import VERDICT_FORMAT, find_verdict
from cloudseg.storage import Store

log = logging.getLogger(__name__)
SPLIT: Split = "held_out"


def decide(
    store: Store,
    catalog: Catalog,
    *,
    challenger_id: str,
    champion_id: str | None,
    snapshot_id: str,
    promotion: PromotionPolicy,
    device: Device,
    smoke_test: Callable[[Store, Weights], SmokeTest] = run_smoke_test,
) -> Verdict:
    """Compare challenger and champion on the held-out chips of a snapshot and store the verdict.

    Weights without an evaluation on these chips are evaluated first, the champion with its own bands and
    working resolution. The same comparison yields the same verdict: the bootstrap is seeded by the ids and the body
    holds no time. A stored verdict is returned as it is, unless its smoke test failed, which can have other causes than
    the weights (a busy machine). Nothing is promoted here (`cloudseg.registry.promote` does that).

    Args:
        store: destination of evaluation reports and the verdict.
        catalog: destination of their rows.
        challenger_id: weights that may become champion.
        champion_id: the champion; None if there is none yet.
        snapshot_id: whose held-out chips both are evaluated on.
        promotion: limits of the comparison, from the challenger's recipe.
        device: where missing evaluations are computed.
        smoke_test: by default in a clean process.

    Returns:
        The row of the verdict, new or stored earlier.

    Raises:
        NotInCatalog: the weights or the snapshot are unknown.
        DataError: the snapshot lacks a band that the challenger needs.
        EmptySplit: the snapshot has no held-out chips.
    """
    with catalog.read() as db:
        known = find_verdict(
            db, challenger_id=challenger_id, champion_id=champion_id, snapshot_id=snapshot_id, policy=promotion
        )
    if known is not None:
        return known
    evaluation, table = _evaluated(store, catalog, challenger_id, snapshot_id, device)
    result = GateResult()
    trivial = compare_with_trivial_masks(table, promotion, result, is_first=champion_id is None)
    against: Json = {"champion": None, "difference": None, "slices": []}
    if _is_comparable(catalog, challenger_id, champion_id, snapshot_id, result) and champion_id is not None:
        champion_evaluation, champion_table = _evaluated(store, catalog, champion_id, snapshot_id, device)
        against = {
            "champion": _figures(champion_evaluation),
            **compare_with_champion(table, champion_table, promotion, result),
        }
    body: Json = {
        "format": VERDICT_FORMAT,
        "challenger_id": challenger_id,
        "champion_id": champion_id,
        "snapshot_id": snapshot_id,
        "split": SPLIT,
        "policy": promotion.model_dump(mode="json"),
        "challenger": _figures(evaluation),
        **against,
        "trivial": {name: vars(difference) for name, difference in trivial.items()},
        # The key is older than the name.
        "blessing": _smoke_test(store, catalog, challenger_id, smoke_test, result),
    }
    return _publish(store, catalog, body | {"outcome": result.outcome, "reasons": result.reasons})


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


def _is_comparable(
    catalog: Catalog, challenger_id: str, champion_id: str | None, snapshot_id: str, result: GateResult
) -> bool:
    """Return whether a champion can be evaluated on the same chips, else add the reason to the result."""
    if champion_id is None:
        result.pros.append("there is no champion yet")
        return False
    if champion_id == challenger_id:
        result.holds.append("challenger and champion are the same weights")
        return False
    with catalog.read() as db:
        needed = model_rows.get_weights(db, champion_id).required_bands
        missing = [band for band in needed if band not in training_rows.get_snapshot(db, snapshot_id).bands]
    if missing:
        result.holds.append(
            f"inconclusive: champion {champion_id} needs bands that snapshot {snapshot_id} lacks "
            f"({' '.join(missing)}); compare on a snapshot with these bands, or promote manually"
        )
    return not missing


def _smoke_test(
    store: Store,
    catalog: Catalog,
    weights_id: str,
    smoke_test: Callable[[Store, Weights], SmokeTest],
    result: GateResult,
) -> Json:
    with catalog.read() as db:
        weights = model_rows.get_weights(db, weights_id)
    found = smoke_test(store, weights)
    (result.pros if found.passed else result.rejects).append(f"smoke test: {found.reason}")
    return {"passed": found.passed, "reason": found.reason}


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
