-- Every model with its run and recipe, whether it is the champion, and how often it was promoted.
CREATE VIEW model_history AS
SELECT
    weights.version AS model_version,
    weights.weights_id,
    weights.architecture,
    weights.run_id,
    run.recipe_name,
    run.recipe_hash,
    run.parent_weights_id,
    weights.snapshot_id,
    weights.key AS weights_key,
    weights.sha256 AS weights_sha256,
    weights.created_at,
    (SELECT COUNT(*) FROM promotion WHERE promotion.weights_id = weights.weights_id) AS times_promoted,
    (SELECT MAX(promotion.created_at) FROM promotion WHERE promotion.weights_id = weights.weights_id)
        AS last_promoted_at,
    (SELECT COUNT(*) FROM mask WHERE mask.weights_id = weights.weights_id AND NOT mask.is_variant) AS masks,
    COALESCE(
        weights.weights_id = (
            SELECT newest.weights_id FROM promotion AS newest ORDER BY newest.generation DESC LIMIT 1
        ),
        FALSE
    ) AS is_champion
FROM weights
LEFT JOIN run ON weights.run_id = run.run_id
