-- Every mask with the masks of the same scene before and after it, by model version, and the one that readers see now.
-- Masks of models that were neither champion nor shown to readers are passed over, so a challenger's mask follows none.
CREATE VIEW mask_version AS
SELECT
    mask.mask_id,
    mask.scene_id,
    mask.weights_id,
    weights.version AS model_version,
    (
        SELECT earlier.mask_id
        FROM mask AS earlier
        INNER JOIN weights AS older ON earlier.weights_id = older.weights_id
        WHERE
            earlier.scene_id = mask.scene_id
            AND NOT earlier.is_variant
            AND older.version < weights.version
            AND (
                EXISTS (SELECT 1 FROM promotion WHERE promotion.weights_id = older.weights_id)
                OR EXISTS (SELECT 1 FROM reader_switch WHERE reader_switch.weights_id = older.weights_id)
            )
        ORDER BY older.version DESC
        LIMIT 1
    ) AS predecessor_mask_id,
    (
        SELECT later.mask_id
        FROM mask AS later
        INNER JOIN weights AS newer ON later.weights_id = newer.weights_id
        WHERE
            later.scene_id = mask.scene_id
            AND NOT later.is_variant
            AND newer.version > weights.version
            AND (
                EXISTS (SELECT 1 FROM promotion WHERE promotion.weights_id = newer.weights_id)
                OR EXISTS (SELECT 1 FROM reader_switch WHERE reader_switch.weights_id = newer.weights_id)
            )
        ORDER BY newer.version
        LIMIT 1
    ) AS successor_mask_id,
    (
        SELECT shown.mask_id
        FROM mask AS shown
        WHERE
            shown.scene_id = mask.scene_id
            AND NOT shown.is_variant
            AND shown.weights_id = (SELECT reader_model.weights_id FROM reader_model)
    ) AS current_mask_id,
    NOT mask.is_variant
    AND COALESCE(mask.weights_id = (SELECT reader_model.weights_id FROM reader_model), FALSE) AS is_current
FROM mask
INNER JOIN weights ON mask.weights_id = weights.weights_id
