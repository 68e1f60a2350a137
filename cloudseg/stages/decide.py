"""Stage: what a decision of a person would change, before the stage that makes it runs."""

from collections.abc import Sequence

from cloudseg.records import DecisionName, DecisionPlan
from cloudseg.registry import decision_plan
from cloudseg.runtime import open_runtime
from cloudseg.stages import log


def plan_decision(
    decision: DecisionName, subjects: Sequence[str], *, hold: bool = False, force: bool = False
) -> DecisionPlan:
    """Check a decision and return what it would change; write nothing.

    Args:
        decision: what is decided.
        subjects: what it is about, by the names that people see (`cloudseg.registry.decision_plan`).
        hold: of `switch_readers`: keep this model also when the masks of a newer champion are complete.
        force: of `promote`: against the verdict or an earlier rejection; of `switch_readers`: although scenes are lost.

    Raises:
        InputError: a subject is missing, or there are too many, or an option does not belong to the decision.
        NotInCatalog: a subject is unknown.
        StateError: the decision would be refused.
    """
    log.started("plan_decision", decision=decision, subjects=list(subjects), hold=hold, force=force)
    runtime = open_runtime()
    plan = decision_plan.plan_decision(runtime.store, runtime.catalog, decision, subjects, hold=hold, force=force)
    log.ended("plan_decision", plan)
    return plan
