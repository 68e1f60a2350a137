"""Reading and writing rasters: canonical objects by windows, Cloud-Optimized GeoTIFFs, footprints."""
