"""WHEN: the DAG files. What they call lies in `cloudseg.stages`."""
