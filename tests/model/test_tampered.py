"""Bytes with another checksum than their row are not loaded, even if they are valid weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cloudseg.catalog import Catalog
from cloudseg.errors import ObjectCorrupt
from cloudseg.model import predictor as predictors
from cloudseg.model.device import Device
from cloudseg.model.int8_net import INT8_ASSET
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.predictor import open_predictor
from cloudseg.model.weights import pack_weights
from cloudseg.recipe import Model
from cloudseg.records import Weights
from cloudseg.registry import register
from cloudseg.storage import LocalStore

CPU = Device(kind="cpu", precision="fp32", threads=1, reason="test")
BANDS = ("red", "green", "blue")


def _packed(seed: int) -> tuple[bytes, WeightsMeta]:
    torch.manual_seed(seed)
    meta = WeightsMeta(
        architecture="SimpleUNet",
        bands=BANDS,
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
    return pack_weights(build_model(Model(widths=(4,), bands=BANDS)), meta), meta


@pytest.fixture
def weights(store: LocalStore, catalog: Catalog) -> Weights:
    data, meta = _packed(0)
    return register(
        store,
        catalog,
        weights=data,
        metadata=meta.model_dump(mode="json"),
        companions={INT8_ASSET: ("model-int8.onnx", b"a graph")},
        run_id=None,
        snapshot_id=None,
        architecture="SimpleUNet",
    )


def _swap(store: LocalStore, key: str, data: bytes) -> None:
    path = Path(str(store.root / key))
    path.chmod(0o644)
    path.write_bytes(data)


def test_swapped_weights_are_not_loaded(store: LocalStore, weights: Weights) -> None:
    assert open_predictor(store, weights, CPU).weights_id == weights.weights_id
    _swap(store, weights.key, _packed(1)[0])
    with pytest.raises(ObjectCorrupt):
        open_predictor(store, weights, CPU)


def test_a_swapped_int8_file_is_not_loaded(
    store: LocalStore, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[bytes] = []
    monkeypatch.setattr(predictors, "Int8Net", lambda data, meta, threads: loaded.append(data))
    fast = replace(CPU, int8="VNNI")
    open_predictor(store, weights, fast)
    assert loaded == [b"a graph"]
    _swap(store, weights.companions[INT8_ASSET]["key"], b"another")
    with pytest.raises(ObjectCorrupt):
        open_predictor(store, weights, fast)
    assert loaded == [b"a graph"]
