"""Weights files from outside.

Whatever the bytes, they load as a finite net or are refused as BadWeights, in bounded memory.
"""

import json
import math
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from cloudseg.errors import BadWeights, InputError
from cloudseg.model.import_baseline_weights import read_baseline_weights
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.safetensors_header import METADATA_KEY
from cloudseg.model.weights import load_weights, pack_weights
from cloudseg.recipe import Architecture, Model
from tests.fuzz.fuzzing import fuzz_bytes, fuzzed

_MOST_BYTES = 200 << 20


def _sound(architecture: Architecture = "SimpleUNet") -> bytes:
    torch.manual_seed(0)
    net = build_model(Model(architecture=architecture, widths=(4,), bands=("red", "green", "blue")))
    meta = WeightsMeta(
        architecture=architecture,
        bands=("red", "green", "blue"),
        widths=(4,),
        dropout=0.0,
        total_parameters=1,
        clip=0.6,
        mean=(0.2,),
        std=(0.2,),
        working_resolution_m=None,
        threshold=0.5,
        tta_flip=False,
        chip_size=32,
    )
    return pack_weights(net, meta)


def _loads_or_is_refused(data: bytes) -> None:
    try:
        loaded = load_weights(data)
    except BadWeights:
        return
    assert all(bool(torch.isfinite(tensor).all()) for tensor in loaded.net.state_dict().values())
    numbers = [
        loaded.meta.clip,
        loaded.meta.threshold,
        loaded.meta.scale,
        loaded.meta.offset,
        *loaded.meta.mean,
        *loaded.meta.std,
    ]
    assert all(math.isfinite(number) for number in numbers)
    assert 0 <= loaded.meta.threshold <= 1


def test_damaged_weights_load_whole_or_not_at_all() -> None:
    fuzz_bytes("weights", _loads_or_is_refused, [_sound(), _sound("EfficientUNet")], examples=60)


def _with(data: bytes, change: Any) -> bytes:
    """Return the file with its header's JSON changed."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    changed = change(header)
    text = changed if isinstance(changed, bytes) else json.dumps(changed or header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


_VALUE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.integers(-2, 2**70), max_size=9)
)


def test_crafted_headers_are_refused_or_harmless() -> None:
    data = _sound()
    (length,) = struct.unpack_from("<Q", data)
    names = list(json.loads(data[8 : 8 + length]))
    meta_names = list(WeightsMeta.model_fields)

    def crafted(where: str, name: str, part: str, value: object, meta_name: str) -> None:
        def change(header: dict[str, Any]) -> None:
            if where == "tensor" and name != "__metadata__":
                header.setdefault(name, {})[part] = value
            elif where == "whole":
                header[name] = value
            else:
                meta = json.loads(header["__metadata__"][METADATA_KEY])
                meta[meta_name] = value
                header["__metadata__"][METADATA_KEY] = json.dumps(meta)

        _loads_or_is_refused(_with(data, change))

    fuzzed(
        crafted,
        st.sampled_from(["tensor", "whole", "meta"]),
        st.sampled_from([*names, "new"]),
        st.sampled_from(["shape", "dtype", "data_offsets", "more"]),
        _VALUE,
        st.sampled_from(meta_names),
        examples=80,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda data: struct.pack("<Q", 2**63) + data[8:],
        lambda data: struct.pack("<Q", 1 << 40) + data[8:],
        lambda data: _with(data, lambda header: header | {"__metadata__": {METADATA_KEY: "x" * (8 << 20)}}),
        lambda data: _with(data, lambda header: header | {f"tensor{n}": header["__metadata__"] for n in range(50_000)}),
        lambda data: _with(data, lambda header: b"[" * 100_000),
        lambda data: _with(data, lambda header: b'{"a":' * 100_000),
        lambda data: _with(data, lambda header: b"9" * 100_000),
        lambda data: _with(data, lambda header: _wide(header, [4096] * 8)),
        lambda data: _with(data, lambda header: _wide(header, [10**30])),
        lambda data: data + bytes(1 << 20),
    ],
    ids=[
        "length",
        "terabyte",
        "huge metadata",
        "many tensors",
        "deep list",
        "deep object",
        "long number",
        "widest net",
        "absurd net",
        "tail",
    ],
)
def test_a_header_that_asks_for_too_much_memory_is_refused(make: Any) -> None:
    data = make(_sound())
    tracemalloc.start()
    try:
        with pytest.raises(BadWeights):
            load_weights(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < _MOST_BYTES


def _wide(header: dict[str, Any], widths: list[int]) -> dict[str, Any]:
    meta = json.loads(header["__metadata__"][METADATA_KEY])
    return header | {"__metadata__": {METADATA_KEY: json.dumps(meta | {"widths": widths})}}


def test_damaged_baseline_weights_are_never_unpickled(tmp_path: Path) -> None:
    sound, path = tmp_path / "sound.pth", tmp_path / "damaged.pth"
    torch.save({"weight": torch.zeros(2, 2)}, sound)

    def is_refused(data: bytes) -> None:
        path.write_bytes(data)
        with (
            pytest.raises(InputError),
            warnings.catch_warnings(action="ignore"),
        ):  # torch warns of old and new protocols
            read_baseline_weights(path)

    fuzz_bytes("baseline", is_refused, [sound.read_bytes()], examples=30)
