-- Every decision about whose masks readers see, who made it and why. mode newest: those of the newest champion, weights_id
-- is null; complete: of these weights until the masks of a newer champion are complete; hold: of these weights until
-- somebody switches. until_at is when a later decision took its place; one with until_at <= from_at never took effect.
CREATE VIEW reader_history AS
SELECT
    reader_switch.sequence,
    reader_switch.action,
    reader_switch.mode,
    reader_switch.weights_id,
    weights.version AS model_version,
    reader_switch.effective_at AS from_at,
    (SELECT MIN(later.effective_at) FROM reader_switch AS later WHERE later.sequence > reader_switch.sequence)
        AS until_at,
    reader_switch.actor,
    reader_switch.reason,
    reader_switch.created_at
FROM reader_switch
LEFT JOIN weights ON reader_switch.weights_id = weights.weights_id
