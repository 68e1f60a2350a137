"""Mask one scene and publish the result."""

import logging
import posixpath
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from cloudseg import __version__, keys
from cloudseg.catalog import Catalog, model_rows, scene_rows
from cloudseg.catalog.promise_rows import find_promise
from cloudseg.catalog.session import now
from cloudseg.errors import DataError, StateError
from cloudseg.keys import make_id
from cloudseg.model.predictor import Predictor
from cloudseg.model.windows import BUDGET_BYTES
from cloudseg.predict.clean import cleaned_drawing, cleaning_tags
from cloudseg.predict.draw import OnProgress, draw_rasters, plan_scene
from cloudseg.predict.pipeline import in_parallel
from cloudseg.publish import StagedObject, publish, stage_object
from cloudseg.raster.brightness import radiometry_of
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.cog import write_cog
from cloudseg.raster.probability import STEPS
from cloudseg.raster.style import MASK_STYLE, classes_qml, probability_qml
from cloudseg.raster.thumbnail import make_thumbnail
from cloudseg.records import Mask, Promise, Scene, StoredObject, Weights
from cloudseg.scratch import scratch_directory
from cloudseg.stac.assets import item_bytes
from cloudseg.stac.mask import MaskFacts, carried_tags, class_names, item_beside
from cloudseg.storage import Store, whole_object

log = logging.getLogger(__name__)
_AS_DRAWN: Final = Cleaning()


def predict_scene(
    store: Store,
    catalog: Catalog,
    *,
    scene_id: str,
    weights_id: str,
    predictor: Predictor,
    cleaning: Cleaning = _AS_DRAWN,
    exact: bool = False,
    budget_bytes: int = BUDGET_BYTES,
    on_progress: OnProgress | None = None,
) -> Mask:
    """Return the mask of a scene by certain weights; it is made and published if it does not exist yet.

    The first mask of a scene by its weights is the one that readers see, however it was cleaned. One that is cleaned in
    another way is published beside it under another id (`Mask.is_variant`).

    A second call finds the row and changes nothing. After a kill at any point, the next call makes the same bytes under
    the same keys and adds the row.

    Args:
        store: of the scene and of the mask.
        catalog: of the rows.
        scene_id: the scene.
        weights_id: the weights.
        predictor: holds these weights.
        cleaning: what is done to the mask that the model draws.
        exact: return or make the mask that is cleaned just so; else the one that readers see counts, if there is one.
        budget_bytes: memory of one forward pass.
        on_progress: called after every window.

    Raises:
        NotInCatalog: the scene or the weights are unknown.
        InputError: a value of the cleaning is out of range.
        StateError: the scene has no georeference, or the predictor holds other weights.
        DataError: the scene lacks bands that the weights read, or the cleaning cannot measure its pixels.
        BadWeights: the net's output is not finite.
        ObjectCorrupt: the scene's bytes are not those that were ingested.
        StoreError: the store fails.
    """
    cleaning.check()
    cleaning = cleaning.of_model(predictor.meta.threshold)
    mask_id = mask_id_of(scene_id, weights_id, cleaning)
    with catalog.read() as db:
        known = model_rows.find_mask_by_id(db, mask_id) if exact else model_rows.find_mask(db, scene_id, weights_id)
        if known is not None:
            return known
        scene, weights = scene_rows.get_scene(db, scene_id), model_rows.get_weights(db, weights_id)
        promise = find_promise(db, weights_id)
    _check(scene, weights, predictor)
    began = time.monotonic()
    with scratch_directory("mask") as folder, whole_object(store, scene, f"scene {scene.scene_id}") as source:
        facts, files = _make(source, scene, weights, predictor, cleaning, promise, folder, budget_bytes, on_progress)
        mask = publish(store, catalog, files, lambda db, stored: _write_row(db, scene, weights, facts, stored))
    radiometry = radiometry_of(weights.metadata, facts.brightness)
    if radiometry.flag == "outside":
        log.warning("scene %s is not as bright as the training scenes: %s", scene.scene_id, radiometry.note)
    log.info(
        "masked scene %s (%s) with weights %s: %.1f %% cloud, %.1f s",
        scene.scene_id,
        scene.name,
        weights.weights_id,
        100 * facts.cloud_fraction,
        time.monotonic() - began,
    )
    return mask


def _check(scene: Scene, weights: Weights, predictor: Predictor) -> None:
    """Raise StateError or DataError if the weights cannot mask the scene."""
    if not scene.publishable or scene.crs is None or scene.footprint_wkb is None:
        raise StateError(
            "masks of scenes without a georeference are not published",
            subject=scene.scene_id,
            found=f"{scene.name}, layout {scene.layout}",
            expected="a scene with CRS and transform",
            next_step="Ingest a georeferenced file; this scene can be used for training and evaluation only.",
        )
    if predictor.weights_id != weights.weights_id:
        raise StateError(
            "the predictor holds other weights",
            subject=weights.weights_id,
            found=predictor.weights_id,
            next_step="Load the weights of this id.",
        )
    missing = [band for band in predictor.meta.required_bands if band not in scene.bands]
    if missing:
        raise DataError(
            f"the scene lacks {', '.join(missing)}, which the model reads",
            subject=scene.scene_id,
            found=", ".join(scene.bands),
            expected=", ".join(predictor.meta.required_bands),
            next_step="Use weights for the bands that it has, or ingest it again with all bands.",
        )


def _make(
    source: Path,
    scene: Scene,
    weights: Weights,
    predictor: Predictor,
    cleaning: Cleaning,
    promise: Promise | None,
    folder: Path,
    budget_bytes: int,
    on_progress: OnProgress | None,
) -> tuple[MaskFacts, dict[str, StagedObject]]:
    """Make the six files of a mask; their names are those in the columns of the row."""
    drawn = {name: folder / f"{name}-drawn.tif" for name in ("mask", "probability")}
    grid = plan_scene(scene, predictor, bands=scene.bands, budget_bytes=budget_bytes)
    log.info("scene %s: %d windows, %d pixels per working pixel", scene.scene_id, len(grid.windows), grid.factor**2)
    facts = draw_rasters(
        str(source),
        scene,
        predictor,
        grid,
        mask=drawn["mask"],
        probability=drawn["probability"],
        on_progress=on_progress,
    )
    facts = cleaned_drawing(drawn["mask"], drawn["probability"], facts, cleaning, scene, folder)
    if facts.missing_bands:  # the promise was measured with all bands
        log.info("scene %s lacks %s: the net saw 0 there", scene.scene_id, ", ".join(facts.missing_bands))
    facts = replace(facts, promise=None if facts.missing_bands else promise)
    tags = _tags(scene, weights, facts, predictor.meta.threshold)
    cogs = {name: folder / f"{name}.tif" for name in drawn}
    in_parallel(
        lambda: write_cog(
            cogs["mask"],
            drawn["mask"],
            resampling="mode",
            tags={**tags, "CLOUDSEG_CLASSES": class_names()},
            band_tags=_band_tags(facts, "mask"),
        ),
        lambda: write_cog(
            cogs["probability"],
            drawn["probability"],
            resampling="average",
            tags={**tags, "CLOUDSEG_ENCODING": ENCODING},
            band_tags=_band_tags(facts, "probability"),
        ),
    )
    files: dict[str, StagedObject] = {name: _named(weights, scene, f"{name}.tif", path) for name, path in cogs.items()}
    files |= _styles(files)
    # A thumbnail that is larger than the scene would be no help.
    thumbnail = make_thumbnail(str(source), cogs["mask"], most_bytes=scene.size)
    files["thumbnail"] = _named(weights, scene, "thumbnail.webp", thumbnail)
    assets = {name: file.stored for name, file in files.items()}
    mask_id = mask_id_of(scene.scene_id, weights.weights_id, facts.cleaning)
    folder_key = posixpath.dirname(assets["mask"].key)
    item = item_beside(key=folder_key, mask_id=mask_id, scene=scene, weights=weights, facts=facts, assets=assets)
    files["item"] = _named(weights, scene, "item.json", item_bytes(item))
    return facts, files


ENCODING = f"probability = value / {STEPS}; 255 = no data; cloud where probability >= CLOUDSEG_THRESHOLD"


def _band_tags(facts: MaskFacts, name: str) -> dict[str, str]:
    return facts.statistics[name].tags() if name in facts.statistics else {}


def _styles(rasters: Mapping[str, StagedObject]) -> dict[str, StagedObject]:
    """Return the QGIS styles of the two rasters, under the base names of their files."""

    def staged(name: str, text: str) -> StagedObject:
        return stage_object(text.encode(), lambda _: keys.style(rasters[name].stored.key))

    return {
        "mask_style": staged("mask", classes_qml(MASK_STYLE)),
        "probability_style": staged("probability", probability_qml()),
    }


def mask_id_of(scene_id: str, weights_id: str, cleaning: Cleaning = _AS_DRAWN) -> str:
    """Return the id of the mask of a scene by certain weights, whether it exists or not.

    Args:
        scene_id: the scene.
        weights_id: the weights.
        cleaning: what is done to the mask; of another threshold only one that is not the model's (`of_model`).
    """
    return make_id("mk", scene_id, weights_id, *([cleaning.text] if cleaning.text else []))


def _named(weights: Weights, scene: Scene, name: str, content: bytes | Path) -> StagedObject:
    return stage_object(content, lambda sha256: keys.mask(weights.weights_id, scene.scene_id, name, sha256))


def _tags(scene: Scene, weights: Weights, facts: MaskFacts, threshold: float) -> dict[str, str]:
    """Return tags for a reader of the file alone, without any that would differ when the mask is made again.

    `threshold` is that of the model.
    """
    tags = {
        "MASK_ID": mask_id_of(scene.scene_id, weights.weights_id, facts.cleaning),
        "SCENE_ID": scene.scene_id,
        "SCENE_NAME": scene.name,
        "MODEL_VERSION": weights.version,
        "WEIGHTS_ID": weights.weights_id,
        "WEIGHTS_SHA256": weights.sha256,
        "SNAPSHOT_ID": weights.snapshot_id or "none",
        "RECIPE": weights.metadata.get("recipe_name") or "none",
        "RECIPE_HASH": weights.metadata.get("recipe_hash") or "none",
        "THRESHOLD": repr(facts.threshold),
        "ARITHMETIC": facts.arithmetic,
        "CLOUD_FRACTION": f"{facts.cloud_fraction:.6f}",
        "VALID_FRACTION": f"{facts.valid_fraction:.6f}",
        "SOFTWARE": f"cloudseg {__version__}",
        **{name.upper(): text for name, text in carried_tags(scene).items()},
    }
    return {
        **{f"CLOUDSEG_{name}": str(value) for name, value in tags.items()},
        **facts.bands_tags,
        **radiometry_of(weights.metadata, facts.brightness).tags(),
        **(facts.promise.tags() if facts.promise else {}),
        **cleaning_tags(facts, threshold),
    }


def _write_row(
    db: Connection, scene: Scene, weights: Weights, facts: MaskFacts, stored: dict[str, StoredObject]
) -> Mask:
    """Add the row, or return the one that another process added meanwhile."""
    mask = Mask(
        mask_id=mask_id_of(scene.scene_id, weights.weights_id, facts.cleaning),
        scene_id=scene.scene_id,
        weights_id=weights.weights_id,
        threshold=facts.threshold,
        cloud_fraction=facts.cloud_fraction,
        valid_fraction=facts.valid_fraction,
        **stored["mask"].model_dump(),
        companions={name: file.model_dump() for name, file in stored.items() if name != "mask"},
        created_at=now(),
        cleaning=facts.cleaning.text,
        radiometry=radiometry_of(weights.metadata, facts.brightness).flag,
        brightness=list(facts.brightness) if facts.brightness is not None else None,
        promise=facts.promise.as_json() if facts.promise else None,
    )
    model_rows.add_mask(db, mask)
    return model_rows.get_mask(db, mask.mask_id)
