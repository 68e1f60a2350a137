-- The masks of the champion only, at most one for each scene: the layer for a map.
CREATE VIEW current_mask AS
SELECT published_mask.*
FROM published_mask
INNER JOIN promotion ON published_mask.weights_id = promotion.weights_id
WHERE promotion.generation = (SELECT MAX(generation) FROM promotion)
