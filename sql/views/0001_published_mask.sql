-- Every published mask with its scene, place, bounds in lon/lat, model and keys in the object store.
-- A scene that crosses 180° has max_lon < min_lon. disputed: a proposed or accepted label corrects it, or was decided on
-- after it was made, and its scene has no newer mask. cleaning: what was done to the mask that the model draws, empty
-- for nothing. is_variant: made beside the mask that readers see of this scene by these weights. radiometry: whether the
-- scene is as bright as training scenes were (inside, outside, unknown).
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
    (
        EXISTS (
            SELECT 1
            FROM label
            INNER JOIN label_event ON label.label_id = label_event.label_id
            WHERE
                label.scene_id = mask.scene_id
                AND label_event.state IN ('proposed', 'accepted')
                AND (label.corrects_mask_id = mask.mask_id OR label_event.created_at > mask.created_at)
                AND label_event.sequence = (
                    SELECT MAX(last.sequence) FROM label_event AS last WHERE last.label_id = label.label_id
                )
        )
        AND NOT EXISTS (
            SELECT 1
            FROM mask AS newer
            WHERE newer.scene_id = mask.scene_id AND newer.created_at > mask.created_at AND NOT newer.is_variant
        )
    ) AS disputed,
    mask.created_at,
    mask.cleaning,
    mask.is_variant,
    mask.radiometry
FROM mask
INNER JOIN scene ON mask.scene_id = scene.scene_id
INNER JOIN weights ON mask.weights_id = weights.weights_id
