"""Health check of one Airflow component.

`python healthy.py api-server|scheduler|dag-processor|triggerer|worker [HOSTNAME]`.

The exit status is 0 if the component is healthy, otherwise 1 with a message. A worker is pinged through the broker.
"""

import json
import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 20.0
# Names of the components in the API server's response, which is based on their heartbeats in the metadata database.
COMPONENTS = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}


def check_component(name: str) -> str | None:
    """Query the API server for the health of a component; return the problem, None if it is healthy."""
    url = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/") + "/api/v2/monitor/health"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310  (the URL is a setting)
            status = (json.load(response).get(COMPONENTS[name]) or {}).get("status")
    except (OSError, ValueError) as error:
        return f"no answer from {url}: {error}"
    return None if status == "healthy" else f"the API server reports {status}"


def check_worker(hostname: str) -> str | None:
    """Ping a Celery worker through the broker; return the problem, None if it answers."""
    from celery import Celery  # not Airflow's app: importing Airflow takes seconds of CPU for each check

    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    replies = app.control.ping(destination=[hostname], timeout=TIMEOUT_S / 2)
    return None if replies else f"no reply from {hostname}"


if __name__ == "__main__":
    problem = check_worker(sys.argv[2]) if sys.argv[1] == "worker" else check_component(sys.argv[1])
    if problem:
        sys.exit(f"{' '.join(sys.argv[1:])}: {problem}")
