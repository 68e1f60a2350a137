"""Keep a cloud-mask model for satellite imagery fresh: ingest, snapshot, train, evaluate, promote, predict.

`cloudseg.load` and `cloudseg.open_masks` are the interface for people who use masks. `cloudseg.stages` (one function
for each step of the pipeline) and the command `cloudseg` are for those who run the service. Importing this package
loads neither torch nor Airflow, nor anything else that takes time.
"""

import os

TYPE_CHECKING = False  # what type checkers take for True; importing `typing` takes ten times as long as the rest
if TYPE_CHECKING:
    from cloudseg.api import Model, Prediction, load, open_masks

__all__ = ["Model", "Prediction", "load", "open_masks"]

# Threads of one tensor operation wait for each other. Spinning, as libgomp does by default, is a little faster on an
# idle machine and ten times slower on one that also runs a scheduler: measured 7.1 s against 0.7 s per training step
# (docs/log.md). libgomp reads this when torch is loaded, and every import of torch here goes through this package.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Megabytes of GDAL's block cache; its default is 5 % of the memory of the machine for every process. It is one for all
# threads, and `rasterio.Env` of any thread sets it for all, in bytes and not in megabytes: so it is set here, which
# GDAL reads once, and by `cloudseg.ingest.block_cache` alone.
os.environ.setdefault("GDAL_CACHEMAX", "64")

# ONNX Runtime's wheels upload telemetry to Microsoft unless this is set before the import; switching it off afterwards
# (`disable_telemetry_events`) does not stop the uploader. Every import of it here goes through this package too. It is
# no default but a rule: docs/concepts/security.md, "No library reports to anyone".
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Return a name of `cloudseg.api`, which is imported when it is first used."""
    if name in __all__:
        from importlib import import_module

        # By its name: nothing below may import `cloudseg.api`, and all of it imports this package.
        return getattr(import_module("cloudseg.api"), name)
    raise AttributeError(f"module 'cloudseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
