"""What analysts compute from published masks: statistics of areas and composites. Needs the extra `gis`."""
