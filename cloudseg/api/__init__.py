"""The Python interface for people who use masks: load a model, mask arrays and files, read published masks lazily.

`cloudseg.load`, `cloudseg.open_masks`, `cloudseg.Model` and `cloudseg.Prediction` are these names; the package looks
them up when they are first used. Torch is imported by `load`, xarray by what needs it.
"""

from cloudseg.api.masks import open_masks
from cloudseg.api.model import Model, Prediction, load

__all__ = ["Model", "Prediction", "load", "open_masks"]
