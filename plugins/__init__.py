"""Pages in the Airflow UI."""
