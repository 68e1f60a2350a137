-- From a mask to the training data of its model: one row for every label of the snapshot, with its scene and the
-- checksums of the sources.
CREATE VIEW mask_lineage AS
SELECT
    mask.mask_id,
    masked.name AS scene_name,
    masked.source_uri AS scene_source_uri,
    masked.source_sha256 AS scene_source_sha256,
    weights.version AS model_version,
    weights.weights_id,
    weights.run_id,
    weights.snapshot_id,
    snapshot_label.split AS taught_as,
    label.label_id,
    label.version AS label_version,
    label.source AS label_source,
    label.source_uri AS label_source_uri,
    label.source_sha256 AS label_source_sha256,
    taught.scene_id AS taught_scene_id,
    taught.name AS taught_scene_name,
    taught.place AS taught_place,
    taught.source_sha256 AS taught_scene_source_sha256
FROM mask
INNER JOIN scene AS masked ON mask.scene_id = masked.scene_id
INNER JOIN weights ON mask.weights_id = weights.weights_id
LEFT JOIN snapshot_label ON weights.snapshot_id = snapshot_label.snapshot_id
LEFT JOIN label ON snapshot_label.label_id = label.label_id
LEFT JOIN scene AS taught ON label.scene_id = taught.scene_id
