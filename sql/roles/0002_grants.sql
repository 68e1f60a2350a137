-- The privileges of each role. Must be run by the owner of the database; every `cloudseg db upgrade` runs it again,
-- because it recreates the views.
--   cloudseg_app      stages: only what they write. No role may change the history of the champion or delete a scene:
--                     `cloudseg remove` needs the owner. Maintenance finishes a removal that was interrupted.
--   cloudseg_airflow  Airflow's own processes (API server with the pages, scheduler): read.
--   gis_reader        GIS users: the two views of schema gis only.

-- PUBLIC is every user of this server.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO cloudseg_app, cloudseg_airflow, gis_reader', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON
    alembic_version, alert, backfill, backfill_scene, checkpoint, decision, epoch, evaluation, label, label_event, mask,
    place, prediction_lease, promotion, quarantine, quarantine_release, reader_switch, removal, retired_snapshot, run,
    scene, scene_brightness, snapshot, snapshot_label, verdict, weights,
    champion_history, current_mask, label_state, mask_lineage, mask_version, model_history, published_mask,
    reader_history, reader_model, scene_label, training_run
FROM PUBLIC, cloudseg_app, cloudseg_airflow, gis_reader;

GRANT USAGE ON SCHEMA public TO cloudseg_app, cloudseg_airflow, gis_reader;
GRANT SELECT ON
    alembic_version, alert, backfill, backfill_scene, checkpoint, decision, epoch, evaluation, label, label_event, mask,
    place, prediction_lease, promotion, quarantine, quarantine_release, reader_switch, removal, retired_snapshot, run,
    scene, scene_brightness, snapshot, snapshot_label, verdict, weights,
    champion_history, current_mask, label_state, mask_lineage, mask_version, model_history, published_mask,
    reader_history, reader_model, scene_label, training_run
TO cloudseg_app, cloudseg_airflow;
GRANT INSERT ON
    alert, backfill, backfill_scene, checkpoint, decision, epoch, evaluation, label, label_event, mask, place,
    prediction_lease, promotion, quarantine, quarantine_release, reader_switch, run, scene, scene_brightness, snapshot,
    snapshot_label, verdict, weights
TO cloudseg_app;
-- A run ends, an alert is seen again, sent and resolved; retention deletes checkpoints and reports; a corrected file
-- leaves quarantine; a scene is drawn, held and done. All else is never changed.
GRANT UPDATE (status, error, finished_at) ON run TO cloudseg_app;
GRANT UPDATE (pending, finished_at) ON removal TO cloudseg_app;
GRANT UPDATE (
    severity, sentence, link, facts, seen_at, resolved_at, sent, sent_at, sent_severity, delivered, claimed_at, settled
) ON alert TO cloudseg_app;
GRANT UPDATE (until, worker, failures, error) ON prediction_lease TO cloudseg_app;
GRANT DELETE ON checkpoint, evaluation, prediction_lease, quarantine TO cloudseg_app;

-- The same for what the owner creates later.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO cloudseg_app, cloudseg_airflow;

-- Schema gis exists where PostGIS does.
DO $$
BEGIN
    IF to_regclass('gis.masks') IS NOT NULL THEN
        REVOKE ALL ON SCHEMA gis FROM PUBLIC;
        GRANT USAGE ON SCHEMA gis TO gis_reader;
        GRANT SELECT ON gis.scenes, gis.masks TO gis_reader;
    END IF;
END
$$
