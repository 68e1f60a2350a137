"""A training step: an image in, parameters changed.

The naive side is the loop of the original project: eager float32, NCHW, batch of one, default allocator, the tile read
from its GeoTIFF. cloudseg is the trainer of the service on a packed snapshot with the baseline recipe (same net, same
optimizer, same loss).
"""

import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import rasterio
import torch

from benchmarks.folder import open_world
from benchmarks.harness import Turn, serve, stopwatch
from benchmarks.world import baseline_recipe, cpu
from cloudseg.catalog import scene_rows
from cloudseg.catalog.training_rows import list_snapshots
from cloudseg.dataset.chips import open_chips
from cloudseg.dataset.snapshot import build_snapshot
from cloudseg.model.device import set_up
from cloudseg.model.nets import build_model
from cloudseg.train.batch import Batch
from cloudseg.train.checkpoint import TrainingProgress
from cloudseg.train.data import TrainingData
from cloudseg.train.distributed import DistributedContext
from cloudseg.train.trainer import Trainer

_IMAGES = 2
"""Images in a turn of the naive side; a turn of the other is one batch of the recipe."""
_STEPS = 10_000
"""More than any benchmark takes."""


def prepare(folder: Path) -> None:
    """Build a snapshot of the benchmark's labels."""
    build_snapshot(*open_world(folder), baseline_recipe())


@contextmanager
def naive(folder: Path) -> Iterator[Turn]:
    """Train with one image per step."""
    store, catalog = open_world(folder)
    with catalog.read() as db:
        pairs = [(scene_rows.get_scene(db, label.scene_id), label) for label in scene_rows.list_newest_labels(db)]
    paths = [(str(store.gdal_path(scene.key)), str(store.gdal_path(label.key))) for scene, label in pairs]
    size = baseline_recipe().data.chip_size
    torch.manual_seed(0)
    net = build_model(baseline_recipe().model).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    criterion = torch.nn.BCEWithLogitsLoss()

    def work() -> tuple[int, float]:
        for number in range(_IMAGES):
            image, label = _read_pair(*paths[number % len(paths)], size)
            optimizer.zero_grad()
            loss = criterion(net(image[None]), label[None, None])
            loss.backward()
            optimizer.step()
            loss.item()
        return _IMAGES, _IMAGES * size * size / 1e6

    yield lambda number: stopwatch(work)


@contextmanager
def cloudseg(folder: Path) -> Iterator[Turn]:
    """Train with `Trainer.train_step` on the batches of `Trainer.batches`."""
    store, catalog = open_world(folder)
    with catalog.read() as db:
        snapshot = list_snapshots(db)[0]
    recipe, device = baseline_recipe(), cpu()
    set_up(device)
    size = recipe.data.chip_size
    with open_chips(store, snapshot) as chip_set:
        data = TrainingData(chip_set, train=list(chip_set.chips), validation=[])
        trainer = Trainer(recipe, data, DistributedContext(0, 1, device), TrainingProgress(0, _STEPS, _STEPS))
        with closing(cast(Generator[Batch, None, None], trainer.batches.iter_from(0, _STEPS))) as batches:

            def work() -> tuple[int, float]:
                trainer.train_step(next(batches))
                return recipe.budget.batch_size, recipe.budget.batch_size * size * size / 1e6

            yield lambda number: stopwatch(work)


def _read_pair(image: str, label: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    with rasterio.open(image) as dataset:
        pixels = dataset.read([1, 2, 3])[:, :size, :size].astype(np.float32) / 10_000 / 0.3558
    with rasterio.open(label) as dataset:
        classes = (dataset.read(1)[:size, :size] == 1).astype(np.float32)
    return torch.from_numpy(pixels), torch.from_numpy(classes)


SIDES = {"naive": naive, "cloudseg": cloudseg}

if __name__ == "__main__":
    with SIDES[sys.argv[1]](Path(sys.argv[2])) as take_turn:
        serve(take_turn)
