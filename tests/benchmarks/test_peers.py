"""The comparison with peers: a missing one is named before anything is measured, and the IoU is that of the labels."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peer_environments, peers, run
from benchmarks.folder import open_world
from benchmarks.peer_environments import PEERS, python_of
from benchmarks.peer_sides import FOLDER, mask_path
from benchmarks.world import masked_scenes
from cloudseg.ingest import DecodeLimits
from cloudseg.ingest.pipeline import ingest_source
from cloudseg.raster.read import open_raster
from cloudseg.raster.synthetic import make_tiles


def test_a_missing_peer_fails_the_benchmark_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peer_environments, "HOME", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run", "--json", str(tmp_path / "found.json")])
    assert run.main() == 1
    printed = capsys.readouterr()
    assert "ukis-csmask 1.0.0" in printed.err
    assert "make peers" in printed.err
    assert printed.out == ""  # not even the first benchmark ran
    assert not (tmp_path / "found.json").exists()


def test_an_environment_counts_when_its_installation_ended_with_these_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_environments, "HOME", tmp_path)
    peer = PEERS[0]
    folder = tmp_path / peer.name
    (folder / "bin").mkdir(parents=True)
    with pytest.raises(peer_environments.StateError, match="not installed"):
        python_of(peer)
    (folder / "requirements.txt").write_text("ukis-csmask==0.2\n")
    with pytest.raises(peer_environments.StateError, match="another version"):
        python_of(peer)
    (folder / "requirements.txt").write_bytes(peer.requirements.read_bytes())
    assert python_of(peer) == str(folder / "bin" / "python")


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_package_of_a_peer_is_pinned(peer: peer_environments.Peer) -> None:
    lines = [line for line in peer.requirements.read_text().splitlines() if not line.startswith("#")]
    assert f"{peer.name}=={peer.version}" in lines
    assert all(line.count("==") == 1 for line in lines)


def write_tiles(folder: Path, weights: str | None) -> None:
    """Write one tile of 2 x 4 pixels: one without data, one without a label, three of the rest cloud."""
    (folder / FOLDER).mkdir()
    dn = np.full((3, 2, 4), 2000, np.uint16)
    dn[:, 0, 0] = 0
    label = np.array([[1, 1, 1, 0], [255, 1, 0, 0]], np.uint8)
    (folder / FOLDER / "tiles.json").write_text(json.dumps([{"bands": ["red", "green", "blue"], "resolution_m": 30.0}]))
    (folder / FOLDER / "weights.json").write_text(json.dumps(weights))
    np.save(folder / FOLDER / "tile_0.npy", dn)
    np.save(folder / FOLDER / "label_0.npy", label)
    masks = {
        "naive": [[1, 1, 1, 0], [1, 1, 0, 0]],  # right where it counts: 3 of 3
        "cloudseg": [[0, 1, 0, 1], [1, 0, 0, 0]],  # 1 of 3, one false
        "ukis_csmask": [[0, 0, 0, 0], [1, 0, 0, 0]],
        "s2cloudless": [[1, 1, 1, 1], [1, 1, 1, 1]],
    }
    for name, mask in masks.items():
        np.save(mask_path(folder, name, 0), np.array(mask, bool))


def test_the_iou_counts_observed_labeled_pixels_and_is_left_out_where_it_says_nothing(tmp_path: Path) -> None:
    write_tiles(tmp_path, "weights.safetensors")
    found = peers.intersections(tmp_path)
    assert found == {"naive": 1.0, "cloudseg": 1 / 4, "ukis_csmask": 0.0, "s2cloudless": None}


def test_random_parameters_have_no_iou(tmp_path: Path) -> None:
    write_tiles(tmp_path, None)
    found = peers.intersections(tmp_path)
    assert found == {"naive": None, "cloudseg": None, "ukis_csmask": 0.0, "s2cloudless": None}


def test_the_scene_is_a_mosaic_of_scenes_with_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiles(tmp_path / "tiles", count=5, size=32, unlabeled=0)
    store, catalog = open_world(tmp_path)
    ingest_source(store, catalog, str(tmp_path / "tiles"), limits=DecodeLimits(), workers=1)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(peers, "MOST_PIXELS", 70)  # two scenes of 32 fit along an axis, and two rows need four scenes
    peers.prepare(tmp_path, str(weights))
    dn, label = (np.load(tmp_path / FOLDER / f"{name}_0.npy") for name in ("tile", "label"))
    assert (dn.shape, label.shape) == ((4, 64, 64), (64, 64))
    scenes = masked_scenes(catalog)
    for number, (row, col) in enumerate(((0, 0), (0, 32), (32, 0), (32, 32))):
        with open_raster(store.gdal_path(scenes[number].key)) as dataset:
            assert np.array_equal(dn[:, row : row + 32, col : col + 32], dataset.read())
    assert set(np.unique(label)) <= {0, 1, 255}
    assert (tmp_path / FOLDER / "weights.safetensors").read_bytes() == b"weights"
