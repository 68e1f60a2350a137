-- Every training: its status, its progress, its weights and the newest verdict of the gate about them.
CREATE VIEW training_run AS
SELECT
    run.run_id,
    run.status,
    run.recipe_name,
    run.recipe_hash,
    run.snapshot_id,
    run.parent_weights_id,
    run.device,
    run.error,
    run.created_at,
    run.finished_at,
    (SELECT COUNT(*) FROM epoch WHERE epoch.run_id = run.run_id) AS epochs,
    (SELECT MAX(epoch.step) FROM epoch WHERE epoch.run_id = run.run_id) AS steps,
    (SELECT MAX(checkpoint.step) FROM checkpoint WHERE checkpoint.run_id = run.run_id) AS checkpoint_step,
    weights.weights_id,
    weights.version AS model_version,
    (
        SELECT verdict.outcome
        FROM verdict
        WHERE verdict.challenger_id = weights.weights_id
        ORDER BY verdict.created_at DESC, verdict.verdict_id
        LIMIT 1
    ) AS outcome
FROM run
LEFT JOIN weights ON run.run_id = weights.run_id
