"""The demo: one turn of the circle under a real `airflow standalone`, watched from a terminal.

It starts Airflow as another process and talks to its REST API; it never imports Airflow. Nothing it starts outlives it.
"""
