-- Group roles without login: grant them to users, `GRANT cloudseg_app TO alice`.
-- Needs the privilege CREATEROLE. Running it again changes nothing.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['cloudseg_app', 'cloudseg_airflow', 'gis_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', wanted);
        END IF;
    END LOOP;
END
$$
