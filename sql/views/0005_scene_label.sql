-- Every scene with its newest accepted label, if it has one, the number of its accepted labels, and the split of its
-- place, if that is decided. cloud_fraction is that of the newest label alone: where it has no opinion (255), older
-- accepted ones hold.
CREATE VIEW scene_label AS
WITH
accepted AS (
    SELECT
        label.scene_id,
        MAX(label.version) AS version,
        COUNT(*) AS labels
    FROM label
    INNER JOIN label_event ON label.label_id = label_event.label_id
    WHERE
        label_event.state = 'accepted'
        AND label_event.sequence = (
            SELECT MAX(last.sequence) FROM label_event AS last WHERE last.label_id = label.label_id
        )
    GROUP BY label.scene_id
)

SELECT
    scene.scene_id,
    scene.name AS scene_name,
    scene.sensor,
    scene.place,
    place.split,
    scene.acquired_at,
    scene.min_lon,
    scene.min_lat,
    scene.max_lon,
    scene.max_lat,
    scene.publishable,
    label.label_id,
    label.version AS label_version,
    label.source AS label_source,
    label.cloud_fraction,
    COALESCE(accepted.labels, 0) AS labels
FROM scene
LEFT JOIN place ON scene.place = place.place
LEFT JOIN accepted ON scene.scene_id = accepted.scene_id
LEFT JOIN label ON scene.scene_id = label.scene_id AND accepted.version = label.version
