from pathlib import Path

from cloudseg import stages
from cloudseg.raster.synthetic import make_tiles

make_tiles(Path("tiles"), count=12, size=192)  # or your own: tiles/images/*.tif, tiles/labels/*.tif
stages.ingest("tiles")
retrained = stages.retrain("smoke")  # snapshot, train, evaluate, promote; "nightly" for a model worth using
print(retrained.promote.outcome, "held-out IoU", round(retrained.evaluate.metrics["iou"], 3))
stages.predict(new=True, weights_id=retrained.train.weights_id)
for mask in stages.masks(limit=3):
    print(mask["scene"], f"{mask['cloud_fraction']:.0%} cloud", mask["uri"])
