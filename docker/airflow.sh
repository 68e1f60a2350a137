#!/bin/sh
# Start one component of Airflow: airflow.sh prepare|api-server|scheduler|dag-processor|triggerer|celery worker …
set -eu
umask 077
case "$1" in
prepare)
  # Run once before all other components, and after an upgrade. Running it again changes nothing.
  airflow db migrate
  airflow pools set gpu "${GPU_SLOTS:-1}" "one slot per GPU worker: further trainings wait here, not in the queue"
  exec cloudseg db upgrade
  ;;
api-server)
  # The simple auth manager reads names and passwords from a file only.
  export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE="$AIRFLOW_HOME/passwords.json"
  python -c 'import json, os; print(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}))' \
    >"$AIRFLOW_HOME/passwords.json"
  ;;
esac
exec airflow "$@"
