"""The whole pipeline on synthetic tiles: ingest, snapshot, train, evaluate, promote, predict. About half a minute.

    python examples/whole_loop.py [FOLDER]

FOLDER keeps what it makes; by default a scratch directory that is deleted at the end.
"""

import os
import sys
import tempfile
from pathlib import Path


def whole_loop(folder: Path) -> None:
    """Run every step in `folder` and print what it returns."""
    os.environ["CLOUDSEG_HOME"] = str(folder / "home")

    from cloudseg import stages
    from cloudseg.raster.synthetic import make_tiles

    make_tiles(folder / "tiles", count=12, unlabeled=2, size=192)
    ingested = stages.ingest(str(folder / "tiles"))
    print(f"ingest    {len(ingested.added)} scenes, {len(ingested.labelled)} labels")

    snapshot = stages.snapshot("smoke")
    print(f"snapshot  {snapshot.snapshot_id}")

    trained = stages.train(snapshot.snapshot_id, recipe="smoke")
    print(
        f"train     {trained.weights_id}, {trained.steps} steps, validation IoU {trained.metrics['validation_iou']:.3f}"
    )

    evaluated = stages.evaluate(trained.weights_id)
    print(f"evaluate  held-out IoU {evaluated.metrics['iou']:.3f}, report {evaluated.report_uri}")

    verdict = stages.promote(trained.weights_id)
    print(f"promote   {verdict.outcome}: {'; '.join(verdict.reasons)}")
    if not verdict.promoted:
        stages.promote(trained.weights_id, force=True, reason="an example needs a champion")

    predicted = stages.predict(new=True)
    print(f"predict   {predicted.created} masks by {predicted.weights_id}")
    for mask in stages.masks(limit=3):
        print(f"          {mask['scene']}: {mask['cloud_fraction']:.0%} cloud, {mask['uri']}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        whole_loop(Path(sys.argv[1] if len(sys.argv) > 1 else scratch))
