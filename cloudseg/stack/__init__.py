"""The stack.

The services of `docker/compose.yaml` as plain processes on loopback, for people and CI without a container engine.

PostgreSQL, Redis and SeaweedFS come from this machine's packages, everything of Airflow from the compose file itself:
commands, start order and health checks stand there once. It never imports Airflow. Nothing it starts outlives it.
"""
