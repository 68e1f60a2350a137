"""Add the pages "Cloud masks" and "Map of cloud masks" to the Airflow UI: menu Browse, tabs of DAG runs and tasks.

Every Airflow process loads plugins, task processes too, so no large package is imported here: an app is built at its
first request.
"""

from typing import Any, Final

from airflow.plugins_manager import AirflowPlugin
from cloudseg_ui import LazyApp

# No leading slash: addresses are relative to the base URL of the UI, which may have a prefix behind a proxy.
_AT: Final = "cloudseg/"
_ICONS: Final = {"icon": f"{_AT}static/icon.svg", "icon_dark_mode": f"{_AT}static/icon_dark.svg"}


def _guards() -> list[Any]:
    """Return Airflow's login as a dependency; without one, routes of a plugin are public."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends

    return [Depends(requires_access_view(AccessView.PLUGINS))]


def _build() -> Any:
    from cloudseg_ui.app import create_app
    from cloudseg_ui.runs import airflow_runs

    return create_app(_open_what_is_there, guards=_guards(), runs=airflow_runs())


def _open_what_is_there() -> Any:
    """Open catalog and store, but create no home that is not there: who looks at a page makes nothing.

    Raises:
        CatalogOutdated: there is no catalog yet.
    """
    from cloudseg.errors import CatalogOutdated
    from cloudseg.runtime import has_catalog, open_runtime, read_settings

    if not has_catalog(read_settings()):
        raise CatalogOutdated("there is no catalog yet", next_step="Run `cloudseg db upgrade`, or any stage.")
    return open_runtime(check=False)


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
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "Cloud masks",
            "href": _AT,
            "destination": "nav",
            "category": "browse",
            "url_route": "cloud_masks",
            **_ICONS,
        },
        {
            "name": "Map of cloud masks",
            "href": f"{_AT}browse/",
            "destination": "nav",
            "category": "browse",
            "url_route": "cloud_map",
            **_ICONS,
        },
        # Tabs. Airflow shows them on every DAG, also on those of others; it percent-encodes the ids.
        {
            "name": "Cloud masks",
            "href": _AT + "of-run?dag_id={DAG_ID}&run_id={RUN_ID}",
            "destination": "dag_run",
            "url_route": "cloud_masks_of_run",
            **_ICONS,
        },
        {
            "name": "Cloud masks",
            "href": _AT + "of-run?dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}",
            "destination": "task_instance",
            "url_route": "cloud_masks_of_task",
            **_ICONS,
        },
    ]
