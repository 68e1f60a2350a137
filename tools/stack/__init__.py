"""The stack: the services of `docker/compose.yaml` as plain processes on loopback, without a container engine.

PostgreSQL, Redis and SeaweedFS come from this machine's packages. Commands, start order and health checks of Airflow's
components come from the compose file. The stack never imports Airflow. Everything that it starts ends with it.
"""
