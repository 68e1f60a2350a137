-- The masks that readers see now, at most one for each scene: the layer for a map. They are those of the newest champion,
-- unless a switch of readers says otherwise (reader_model).
CREATE VIEW current_mask AS
SELECT published_mask.*
FROM published_mask
WHERE published_mask.weights_id = (SELECT reader_model.weights_id FROM reader_model) AND NOT published_mask.is_variant
