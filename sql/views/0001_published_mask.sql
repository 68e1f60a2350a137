-- Every published mask with its scene, place, bounds in lon/lat, model and keys in the object store.
-- A scene that crosses 180° has max_lon < min_lon.
CREATE VIEW published_mask AS
SELECT
    mask.mask_id,
    mask.scene_id,
    scene.name AS scene_name,
    scene.sensor,
    scene.place,
    scene.acquired_at,
    scene.crs,
    scene.min_lon,
    scene.min_lat,
    scene.max_lon,
    scene.max_lat,
    scene.footprint_wkb,
    mask.cloud_fraction,
    mask.valid_fraction,
    mask.threshold,
    mask.weights_id,
    weights.version AS model_version,
    weights.architecture,
    mask.key AS mask_key,
    mask.sha256 AS mask_sha256,
    mask.companions -> 'probability' ->> 'key' AS probability_key,
    mask.companions -> 'thumbnail' ->> 'key' AS thumbnail_key,
    mask.companions -> 'item' ->> 'key' AS item_key,
    mask.created_at
FROM mask
INNER JOIN scene ON mask.scene_id = scene.scene_id
INNER JOIN weights ON mask.weights_id = weights.weights_id
