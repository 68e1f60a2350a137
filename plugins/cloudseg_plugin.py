"""Puts the page "Cloud masks" into the Airflow UI (menu Browse).

Every Airflow process loads plugins, tasks too, so nothing heavy is imported here: the app is built on its first
request.
"""

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from cloudseg_ui import LazyApp


def _build() -> Any:
    """Build the app behind Airflow's own login: plugin routes are public unless each demands it."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from cloudseg_ui.app import create_app
    from fastapi import Depends

    from cloudseg.runtime import open_runtime

    return create_app(lambda: open_runtime(check=False), guards=[Depends(requires_access_view(AccessView.PLUGINS))])


class CloudsegPlugin(AirflowPlugin):
    """The page, its app, and nothing else."""

    name = "cloudseg"
    fastapi_apps: list[Any] = [{"app": LazyApp(_build), "url_prefix": "/cloudseg", "name": "cloudseg"}]  # noqa: RUF012  (Airflow declares it so)
    # No slash at the beginning: the UI's own base address comes first, with whatever prefix a proxy gives Airflow.
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "Cloud masks",
            "href": "cloudseg/",
            "destination": "nav",
            "category": "browse",
            "url_route": "cloud_masks",
        }
    ]
