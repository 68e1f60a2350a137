-- Every scene with its newest label, if it has one, and the split of its place, if that is decided.
CREATE VIEW scene_label AS
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
    label.cloud_fraction
FROM scene
LEFT JOIN place ON scene.place = place.place
LEFT JOIN label
    ON scene.scene_id = label.scene_id
    AND label.version = (SELECT MAX(newer.version) FROM label AS newer WHERE newer.scene_id = scene.scene_id)
