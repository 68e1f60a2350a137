-- Every label with its scene, its state, and who decided that, when and why. A snapshot holds the accepted ones.
CREATE VIEW label_state AS
SELECT
    label.label_id,
    label.scene_id,
    scene.name AS scene_name,
    label.version AS label_version,
    label.source AS label_source,
    label.corrects_mask_id,
    label_event.state,
    label_event.actor,
    label_event.reason,
    label_event.created_at AS state_since,
    label.created_at
FROM label
INNER JOIN scene ON label.scene_id = scene.scene_id
INNER JOIN label_event
    ON label.label_id = label_event.label_id
    AND label_event.sequence = (
        SELECT MAX(newest.sequence) FROM label_event AS newest WHERE newest.label_id = label.label_id
    )
