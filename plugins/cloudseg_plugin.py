"""Add the page "Cloud masks" to the Airflow UI (menu Browse).

Every Airflow process loads plugins, task processes too, so no large package is imported here: the app is built at its
first request.
"""

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from cloudseg_ui import LazyApp


def _build() -> Any:
    """Build the app with Airflow's login as a dependency; without one, routes of a plugin are public."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from cloudseg_ui.app import create_app
    from fastapi import Depends

    from cloudseg.runtime import open_runtime

    return create_app(lambda: open_runtime(check=False), guards=[Depends(requires_access_view(AccessView.PLUGINS))])


class CloudsegPlugin(AirflowPlugin):
    """The page and its app."""

    name = "cloudseg"
    fastapi_apps: list[Any] = [{"app": LazyApp(_build), "url_prefix": "/cloudseg", "name": "cloudseg"}]  # noqa: RUF012  (Airflow declares it so)
    # No leading slash: the address is relative to the base URL of the UI, which may have a prefix behind a proxy.
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "Cloud masks",
            "href": "cloudseg/",
            "destination": "nav",
            "category": "browse",
            "url_route": "cloud_masks",
        }
    ]
