"""The DAG files, which define when stages run; the stages are in `cloudseg.stages`."""
