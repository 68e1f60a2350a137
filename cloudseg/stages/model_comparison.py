"""Stage: compare any two models by their stored evaluations."""

from cloudseg.records import Json
from cloudseg.runtime import open_runtime
from cloudseg.stages import log


def compare_models(a: str, b: str) -> Json:
    """Compare two models on the held-out scenes that both were evaluated on; nothing is evaluated and nothing written.

    The statistics are the gate's: paired differences with bounds, for all scenes, each slice and each place.

    Args:
        a: a model: `w-…`, `v31` or `champion`.
        b: another one; differences are A minus B.

    Raises:
        NotInCatalog: a model is unknown.
        InputError: both are the same.
        StateError: they cannot be compared; the message names the command that makes it possible.
        ObjectMissing: the store lacks a part of an evaluation.
        ObjectCorrupt: the bytes of one do not match their checksum.
    """
    log.started("compare_models", a=a, b=b)
    runtime = open_runtime()
    from cloudseg.evaluate.model_comparison import compare_two

    record = compare_two(runtime.store, runtime.catalog, a, b)
    log.ended("compare_models", {"difference": record["difference"]["pooled"], **record["compared"]})
    return record
