-- Every published mask with the footprint of its scene. is_current: readers see it now, at most one for
-- each scene. successor_mask_id: the mask of the same scene that followed it.
-- disputed: a proposed or accepted label corrects it, and its scene has no newer mask.
-- radiometry: whether the scene is as bright as training scenes were (inside, outside, unknown).
CREATE VIEW gis.masks AS
SELECT
    mask.mask_id,
    mask.scene_id,
    scene.name AS scene_name,
    scene.sensor,
    scene.place,
    scene.acquired_at,
    mask.cloud_fraction,
    mask.valid_fraction,
    mask.threshold,
    weights.version AS model_version,
    mask.weights_id,
    NOT mask.is_variant
    AND COALESCE(mask.weights_id = (SELECT reader_model.weights_id FROM reader_model), FALSE) AS is_current,
    (SELECT mask_version.successor_mask_id FROM mask_version WHERE mask_version.mask_id = mask.mask_id)
        AS successor_mask_id,
    (SELECT published_mask.disputed FROM published_mask WHERE published_mask.mask_id = mask.mask_id) AS disputed,
    scene.footprint,
    store.url || mask.key AS url,
    store.gdal || mask.key AS gdal,
    store.url || (mask.companions -> 'probability' ->> 'key') AS probability_url,
    store.url || (mask.companions -> 'thumbnail' ->> 'key') AS thumbnail_url,
    store.url || (mask.companions -> 'item' ->> 'key') AS item_url,
    mask.sha256,
    mask.created_at,
    mask.cleaning,
    mask.radiometry
FROM mask
INNER JOIN scene ON mask.scene_id = scene.scene_id
INNER JOIN weights ON mask.weights_id = weights.weights_id
CROSS JOIN gis.store
