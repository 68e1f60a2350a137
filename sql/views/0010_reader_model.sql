-- One row: the weights whose masks readers see now. The decision with the highest sequence of those in effect names them;
-- without one, or where it says so, they are the newest champion. A decision that is in effect as soon as it is made has
-- effective_at = created_at, so that it does not depend on the clock of the database, which SQLite cuts to seconds.
CREATE VIEW reader_model AS
SELECT
    COALESCE(
        (
            SELECT reader_switch.weights_id
            FROM reader_switch
            WHERE
                reader_switch.effective_at <= reader_switch.created_at
                OR reader_switch.effective_at <= CURRENT_TIMESTAMP
            ORDER BY reader_switch.sequence DESC
            LIMIT 1
        ),
        (SELECT promotion.weights_id FROM promotion ORDER BY promotion.generation DESC LIMIT 1)
    ) AS weights_id
