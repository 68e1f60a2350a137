"""Stored verdicts: which of them answers a comparison, so that the gate and its dry run name the same one."""

from typing import Final

from sqlalchemy import Connection

from cloudseg.catalog import model_rows
from cloudseg.recipe import PromotionPolicy
from cloudseg.records import Run, Verdict

VERDICT_FORMAT: Final = "cloudseg-verdict-1"


def policy_of(run: Run | None) -> PromotionPolicy:
    """Return the promotion policy of the recipe of a run, the default one for imported weights.

    Only this part of the stored recipe: the rules for recipes may have become stricter since the run began.
    """
    return PromotionPolicy.model_validate(run.recipe.get("promotion", {})) if run else PromotionPolicy()


def find_verdict(
    db: Connection, *, challenger_id: str, champion_id: str | None, snapshot_id: str, policy: PromotionPolicy
) -> Verdict | None:
    """Return the newest verdict that a comparison finds instead of making one, None if it makes one.

    A failed smoke test can have other causes than the weights (a busy machine), so such a comparison is made again; so
    is one by an older format or another policy.
    """
    wanted = {"format": VERDICT_FORMAT, "snapshot_id": snapshot_id, "policy": policy.model_dump(mode="json")}
    given = [v for v in model_rows.list_verdicts(db, challenger_id=challenger_id) if v.champion_id == champion_id]
    fitting = (v for v in given if all(v.body.get(name) == value for name, value in wanted.items()))
    # The key is older than the name of the smoke test.
    return next((verdict for verdict in fitting if verdict.body["blessing"]["passed"]), None)
