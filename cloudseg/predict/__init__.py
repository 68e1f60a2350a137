"""From a scene and weights to a published mask."""

from cloudseg.predict.draw import OnProgress, PredictionProgress
from cloudseg.predict.scene import mask_id_of, predict_scene

__all__ = ["OnProgress", "PredictionProgress", "mask_id_of", "predict_scene"]
