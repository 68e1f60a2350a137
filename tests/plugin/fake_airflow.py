"""Airflow as the pages see it when they decide, without an Airflow.

The real one: tests/tools/demo/test_standalone.py.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from cloudseg_ui.decide import Run, Runs
from fastapi import Depends, HTTPException, Request


@dataclass
class FakeAirflow:
    """Two users, `ada` may trigger the DAG; what is triggered is only noted."""

    triggered: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    state: str = "queued"

    def runs(self) -> Runs:
        def person(request: Request) -> str:
            return request.headers.get("X-User", "viewer")

        def allowed(person: Annotated[str, Depends(person)]) -> bool:
            return person == "ada"

        def guard(may: Annotated[bool, Depends(allowed)]) -> None:
            if not may:
                raise HTTPException(403, "Forbidden")

        def trigger(person: str, conf: dict[str, Any]) -> str:
            self.triggered.append((person, conf))
            return f"manual__{len(self.triggered)}"

        return Runs(
            guards=[Depends(guard)],
            allowed=allowed,
            person=person,
            trigger=trigger,
            find=lambda run_id: Run(self.state, self.triggered[-1][1]) if run_id == "manual__1" else None,
            own_hosts=["airflow.example.org"],
        )
