-- The masks that readers saw at a moment: SELECT * FROM mask_as_of('2026-11-01T00:00:00Z'). PostgreSQL only; for SQLite
-- docs/how-to/new_model_old_masks.md has the same as one statement.
CREATE FUNCTION mask_as_of(moment timestamptz) RETURNS SETOF published_mask LANGUAGE sql STABLE AS $$
SELECT published_mask.*
FROM published_mask
WHERE
    published_mask.created_at <= moment
    AND NOT published_mask.is_variant
    AND published_mask.weights_id = COALESCE(
        (
            SELECT reader_history.weights_id
            FROM reader_history
            WHERE reader_history.from_at <= moment
            ORDER BY reader_history.sequence DESC
            LIMIT 1
        ),
        (
            SELECT champion_history.weights_id
            FROM champion_history
            WHERE champion_history.from_at <= moment
            ORDER BY champion_history.generation DESC
            LIMIT 1
        )
    )
$$
