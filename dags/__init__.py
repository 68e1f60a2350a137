"""The DAG files: when and how often a stage of `cloudseg.stages` runs."""
