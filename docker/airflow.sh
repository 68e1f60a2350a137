#!/bin/sh
# Starts one part of Airflow: airflow.sh prepare | api-server | scheduler | dag-processor | triggerer | celery worker …
set -eu
umask 077
case "$1" in
prepare)
  # Once before everything else; again after an upgrade. Running it twice changes nothing.
  airflow db migrate
  airflow pools set gpu "${GPU_SLOTS:-1}" "one slot for each GPU worker: surplus trainings wait here, not in the queue"
  exec cloudseg db upgrade
  ;;
api-server)
  # The simple login reads names and passwords from a file only.
  export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE="$AIRFLOW_HOME/passwords.json"
  python -c 'import json, os; print(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}))' >"$AIRFLOW_HOME/passwords.json"
  ;;
esac
exec airflow "$@"
