"""Run the int8 asset of published weights."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from cloudseg.errors import BadWeights
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.safetensors_header import METADATA_KEY

INT8_ASSET: Final = "int8"
"""Name of the asset among those of the weights (column `companions` of their row)."""
INT8_FILE: Final = "model-int8.onnx"


class Int8Net:
    """The int8 file of some weights, ready to run on the CPU: preprocessing, net, sigmoid and flip in one graph."""

    def __init__(self, data: bytes, meta: WeightsMeta, *, threads: int, fused: bool = True) -> None:
        """Check the file and prepare it.

        Args:
            data: an ONNX file whose checksum the caller has compared.
            meta: of the weights that it must belong to.
            threads: CPU threads, at least 1.
            fused: False computes the same graph node by node in float32, rounding where int8 would: slow, but exact on
                every CPU.

        Raises:
            BadWeights: not an ONNX file, one of other weights, or one that would read more files.
        """
        _check(data, meta)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that wait in a loop use CPU time of the other workers of a busy machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Its arena keeps the memory of a window for the next one; with a plan for all maps it was 120 MB larger.
        options.enable_mem_pattern = False
        if not fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def probability(self, dn: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """Return the probability of cloud.

        Args:
            dn: canonical digital numbers uint16 `(n, band, row, col)`, 0 for no data, sides multiples of
                `meta.multiple`.

        Returns:
            float32 `(n, row, col)` in 0..1.
        """
        (found,) = self._session.run(["probability"], {"dn": dn})
        probability: npt.NDArray[np.float32] = found
        return probability


def _check(data: bytes, meta: WeightsMeta) -> None:
    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise _bad("not an ONNX file", found=error) from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise _bad("the file refers to other files", found="external data", expected="every parameter inside")
    if _read_meta(model) != meta:
        raise _bad("the file belongs to other weights", expected=f"metadata of run {meta.run_id}")


def _read_meta(model: onnx.ModelProto) -> WeightsMeta | None:
    """Return the metadata in the file, by value: its text may have names of an earlier release. None if unreadable."""
    text = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY, "")
    try:
        return WeightsMeta.model_validate_json(text)
    except ValidationError:
        return None


def _bad(what: str, *, found: object = None, expected: object = None) -> BadWeights:
    next_step = "Set CLOUDSEG_INT8=off to predict without it, and train again to get a new one."
    return BadWeights(what, subject="int8 file", found=found, expected=expected, next_step=next_step)
