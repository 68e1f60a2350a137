-- The footprint as a PostGIS geometry, generated from footprint_wkb.
ALTER TABLE scene ADD COLUMN IF NOT EXISTS
    footprint geometry(Geometry, 4326) GENERATED ALWAYS AS (ST_GeomFromWKB(footprint_wkb, 4326)) STORED;
CREATE INDEX IF NOT EXISTS ix_scene_footprint ON scene USING gist (footprint)
