"""The demo: the whole pipeline once under a real `airflow standalone`, followed in a terminal.

It starts Airflow as another process and talks to its REST API; it never imports Airflow. Everything that it starts ends
with it.
"""
