"""Making the int8 file of a net: the rest of cloudseg uses these names only.

A training calls `make_int8` and publishes the file as an asset of the weights if it agrees with fp32;
`cloudseg.model.predictor` runs it through `cloudseg.model.int8_net` where `cloudseg.model.device` finds int8 arithmetic
that sums exactly. Why, and what stays in float32: docs/decisions/0015_int8.md.
"""

from cloudseg.model.int8.agreement import Agreement, Quantized, make_int8, measure_agreement
from cloudseg.model.int8.quantization import CALIBRATION_CHIPS, METHODS, Method, quantize

__all__ = [
    "CALIBRATION_CHIPS",
    "METHODS",
    "Agreement",
    "Method",
    "Quantized",
    "make_int8",
    "measure_agreement",
    "quantize",
]
