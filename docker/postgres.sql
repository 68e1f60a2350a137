-- Create two databases on one server: Airflow's metadata database and the catalog. Run once as administrator, with psql
-- (14 or newer); passwords come from the environment. On a managed server: `psql -f docker/postgres.sql`.
\set ON_ERROR_STOP on
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv owner_password CLOUDSEG_OWNER_PASSWORD
\getenv app_password CLOUDSEG_APP_PASSWORD
\getenv cloudseg_airflow_password CLOUDSEG_AIRFLOW_PASSWORD
\getenv gis_password GIS_READER_PASSWORD

CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE DATABASE airflow OWNER airflow;

-- The owner runs the migrations, which grant the other roles their privileges.
CREATE ROLE cloudseg_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE cloudseg_app LOGIN PASSWORD :'app_password';
CREATE ROLE cloudseg_airflow LOGIN PASSWORD :'cloudseg_airflow_password';
CREATE ROLE gis_reader LOGIN PASSWORD :'gis_password';
CREATE DATABASE cloudseg OWNER cloudseg_owner;

\connect airflow
REVOKE ALL ON DATABASE airflow FROM PUBLIC;
\connect cloudseg
REVOKE ALL ON DATABASE cloudseg FROM PUBLIC;
GRANT CONNECT ON DATABASE cloudseg TO cloudseg_app, cloudseg_airflow, gis_reader;
-- Only an administrator may install PostGIS. Without it the catalog works, but has no geometry column.
SELECT count(*) > 0 AS has_postgis FROM pg_available_extensions WHERE name = 'postgis' \gset
\if :has_postgis
CREATE EXTENSION postgis;
\endif
