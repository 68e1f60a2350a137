"""Keep a cloud-mask model for satellite imagery fresh: ingest, snapshot, train, evaluate, promote, predict.

The public way in is `cloudseg.stages` (one function for each arrow of the circle) and the command `cloudseg`.
Importing this package loads neither torch nor Airflow.
"""

__version__ = "0.1.0"
