-- Every champion with the time of its promotion and of its replacement, who decided and why. until_at of the current
-- champion is null.
CREATE VIEW champion_history AS
SELECT
    promotion.generation,
    promotion.action,
    promotion.weights_id,
    weights.version AS model_version,
    promotion.created_at AS from_at,
    LEAD(promotion.created_at) OVER (ORDER BY promotion.generation) AS until_at,
    promotion.previous_weights_id,
    promotion.verdict_id,
    verdict.outcome,
    promotion.actor,
    promotion.reason
FROM promotion
INNER JOIN weights ON promotion.weights_id = weights.weights_id
LEFT JOIN verdict ON promotion.verdict_id = verdict.verdict_id
