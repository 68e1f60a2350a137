-- Who may do what. Needs the owner of the database; every `cloudseg db upgrade` runs it again, because it makes the views anew.
--   cloudseg_app      stages: what they write, no more. Nobody rewrites the history of the champion or deletes a scene.
--   cloudseg_airflow  Airflow's own processes (API server with the pages, scheduler): read.
--   gis_reader        GIS people: the two views of schema gis, and nothing else.

-- PUBLIC is everybody with a password on this server.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO cloudseg_app, cloudseg_airflow, gis_reader', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON
    alembic_version, checkpoint, decision, epoch, evaluation, label, mask, place, promotion, quarantine, run, scene, snapshot,
    snapshot_label, verdict, weights,
    champion_history, current_mask, mask_lineage, model_history, published_mask, scene_label, training_run
FROM PUBLIC, cloudseg_app, cloudseg_airflow, gis_reader;

GRANT USAGE ON SCHEMA public TO cloudseg_app, cloudseg_airflow, gis_reader;
GRANT SELECT ON
    alembic_version, checkpoint, decision, epoch, evaluation, label, mask, place, promotion, quarantine, run, scene, snapshot,
    snapshot_label, verdict, weights,
    champion_history, current_mask, mask_lineage, model_history, published_mask, scene_label, training_run
TO cloudseg_app, cloudseg_airflow;
GRANT INSERT ON
    checkpoint, decision, epoch, evaluation, label, mask, place, promotion, quarantine, run, scene, snapshot, snapshot_label,
    verdict, weights
TO cloudseg_app;
-- A run ends; retention forgets checkpoints and reports; a mended file leaves quarantine. All else stays as it was written.
GRANT UPDATE (status, error, finished_at) ON run TO cloudseg_app;
GRANT DELETE ON checkpoint, evaluation, quarantine TO cloudseg_app;

-- What the owner makes later is read by whom it concerns, and by nobody else.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO cloudseg_app, cloudseg_airflow;

-- Schema gis is there where PostGIS is.
DO $$
BEGIN
    IF to_regclass('gis.masks') IS NOT NULL THEN
        REVOKE ALL ON SCHEMA gis FROM PUBLIC;
        GRANT USAGE ON SCHEMA gis TO gis_reader;
        GRANT SELECT ON gis.scenes, gis.masks TO gis_reader;
    END IF;
END
$$
