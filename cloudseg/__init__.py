"""Keep a cloud-mask model for satellite imagery fresh: ingest, snapshot, train, evaluate, promote, predict.

The public interface is `cloudseg.stages` (one function for each step of the pipeline) and the command `cloudseg`.
Importing this package loads neither torch nor Airflow.
"""

import os

# Threads of one tensor operation wait for each other. Spinning, as libgomp does by default, is a little faster on an
# idle machine and ten times slower on one that also runs a scheduler: measured 7.1 s against 0.7 s per training step
# (docs/log.md). libgomp reads this when torch is loaded, and every import of torch here goes through this package.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# ONNX Runtime's wheels upload telemetry to Microsoft unless this is set before the import; switching it off afterwards
# (`disable_telemetry_events`) does not stop the uploader. Every import of it here goes through this package too. It is
# no default but a rule: docs/concepts/security.md, "No library reports to anyone".
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
