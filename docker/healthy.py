"""Health of one part of Airflow, for health checks.

`python healthy.py api-server|scheduler|dag-processor|triggerer|worker [HOSTNAME]`.

Ends with 0 where the part is well, with 1 and one line where not. A worker is asked through the broker.
"""

import json
import os
import sys
import urllib.error
import urllib.request

ANSWER_S = 20.0
# Names of the parts in the answer of the API server, which knows the others by their life signs in the metadata
# database.
PARTS = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}


def part_fault(name: str) -> str | None:
    """Ask the API server about a part; return what is wrong, None where nothing is."""
    url = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/") + "/api/v2/monitor/health"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:  # noqa: S310  (the address is our own setting)
            status = (json.load(answer).get(PARTS[name]) or {}).get("status")
    except (OSError, ValueError) as error:
        return f"no answer from {url}: {error}"
    return None if status == "healthy" else f"the API server reports {status}"


def worker_fault(hostname: str) -> str | None:
    """Ask a Celery worker for a sign of life through the broker; return what is wrong, None where nothing is."""
    from celery import Celery  # not Airflow's own app: importing Airflow for each check would cost seconds of CPU

    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    answers = app.control.ping(destination=[hostname], timeout=ANSWER_S / 2)
    return None if answers else f"no sign of life from {hostname}"


if __name__ == "__main__":
    fault = worker_fault(sys.argv[2]) if sys.argv[1] == "worker" else part_fault(sys.argv[1])
    if fault:
        sys.exit(f"{' '.join(sys.argv[1:])}: {fault}")
