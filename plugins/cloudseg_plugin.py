"""Add the pages "Cloud masks" and "Map of cloud masks" to the Airflow UI (menu Browse).

Every Airflow process loads plugins, task processes too, so no large package is imported here: an app is built at its
first request.
"""

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from cloudseg_ui import LazyApp


def _guards() -> list[Any]:
    """Return Airflow's login as a dependency; without one, routes of a plugin are public."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends

    return [Depends(requires_access_view(AccessView.PLUGINS))]


def _build() -> Any:
    from cloudseg_ui.app import create_app
    from cloudseg_ui.runs import airflow_runs

    from cloudseg.runtime import open_runtime

    return create_app(lambda: open_runtime(check=False), guards=_guards(), runs=airflow_runs())


def _build_browse() -> Any:
    from cloudseg_ui.browse import create_browse, open_application

    from cloudseg.runtime import open_runtime

    return create_browse(lambda: open_application(open_runtime(check=False)), guards=_guards(), login_page=_login_page)


def _login_page(then: str) -> str:
    """Return the address of the login page, which leads to `then` afterward."""
    from urllib.parse import urlencode

    from airflow.api_fastapi.app import get_auth_manager

    return f"{get_auth_manager().get_url_login()}?{urlencode({'next': then})}"


class CloudsegPlugin(AirflowPlugin):
    """The pages and their apps."""

    name = "cloudseg"
    # The longer prefix comes first: the first one that fits gets the request.
    fastapi_apps: list[Any] = [  # noqa: RUF012  (Airflow declares it so)
        {"app": LazyApp(_build_browse), "url_prefix": "/cloudseg/browse", "name": "cloudseg browse"},
        {"app": LazyApp(_build), "url_prefix": "/cloudseg", "name": "cloudseg"},
    ]
    # No leading slash: the address is relative to the base URL of the UI, which may have a prefix behind a proxy.
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "Cloud masks",
            "href": "cloudseg/",
            "destination": "nav",
            "category": "browse",
            "url_route": "cloud_masks",
        },
        {
            "name": "Map of cloud masks",
            "href": "cloudseg/browse/",
            "destination": "nav",
            "category": "browse",
            "url_route": "cloud_map",
        },
    ]
