-- Two databases on one server: Airflow's own, and the catalog. Run once by an administrator, with psql (14 or newer); passwords
-- come from the environment. A managed server: the same file, `psql -f docker/postgres.sql` as its administrator.
\set ON_ERROR_STOP on
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv owner_password CLOUDSEG_OWNER_PASSWORD
\getenv app_password CLOUDSEG_APP_PASSWORD
\getenv cloudseg_airflow_password CLOUDSEG_AIRFLOW_PASSWORD
\getenv gis_password GIS_READER_PASSWORD

CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE DATABASE airflow OWNER airflow;

-- The owner runs the migrations; the others get from them what they may do, and nothing else.
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
-- PostGIS may only be installed by an administrator. Without it the catalog works, without the geometry column.
SELECT count(*) > 0 AS has_postgis FROM pg_available_extensions WHERE name = 'postgis' \gset
\if :has_postgis
CREATE EXTENSION postgis;
\endif
