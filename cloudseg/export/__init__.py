"""Published masks as other people need them: polygons, footprints, cleaned rasters."""
