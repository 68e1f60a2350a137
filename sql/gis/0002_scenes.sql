-- Every scene with its footprint. gdal is the path for GDAL and QGIS, url the address for people and scripts.
CREATE VIEW gis.scenes AS
SELECT
    scene.scene_id,
    scene.name,
    scene.sensor,
    scene.place,
    scene.acquired_at,
    scene.resolution_m,
    scene.valid_fraction,
    scene.publishable,
    scene.crs,
    scene.footprint,
    store.url || scene.key AS url,
    store.gdal || scene.key AS gdal,
    scene.sha256,
    scene.created_at
FROM scene
CROSS JOIN gis.store
