"""The public validator of STAC APIs against real servers, on SQLite and on PostGIS."""

import json
import re
from pathlib import Path

import pytest
import requests
from stac_api_validator.validations import QueryConfig, validate_api

from tests.conftest import SHARED_DATA
from tests.serve.conftest import running_server
from tests.stac_offline import stay_offline

AREA = {"type": "Polygon", "coordinates": [[[2.2, 49.5], [3, 49.5], [3, 49.8], [2.2, 49.8], [2.2, 49.5]]]}
CLASSES = ["core", "collections", "features", "item-search", "filter"]
EXPECTED = (
    # It asks for a field `mission`, which is none of ours: a filter by an unknown field is refused.
    r"mission (NOT )?LIKE 'sentinel%'",
    r'"property": "mission"',
    # With {"exclude": ["geometry"]} it expects that another field is left out too, which it names nowhere.
    r"POST \{'fields': \{'exclude': \['geometry'\], 'include': (\[\]|None)\}\} response contained 'prop",
    # With {"include": […]} alone it expects at least five fields, with {"include": ["id"]} at most five.
    r"POST \{'fields': \{'exclude': \['properties'\], .* response contained fewer than 5 fields",
)


@pytest.fixture(params=["sqlite", "postgis"])
def address(request: pytest.FixtureRequest, published: Path) -> str:
    if request.param == "sqlite":
        yield request.getfixturevalue("server")
    else:
        with running_server(published, catalog_url=request.getfixturevalue("postgis_url")) as found:
            yield found


@pytest.mark.filterwarnings("ignore")
def test_the_public_validator_finds_nothing(address: str, monkeypatch: pytest.MonkeyPatch):
    schemas = SHARED_DATA / "stac_schemas"
    stay_offline(monkeypatch, schemas if schemas.is_dir() else None)
    root = f"{address}/stac/"
    items = requests.get(f"{root}collections/masks/items?limit=50", timeout=60).json()["features"]
    covers = sorted(item["properties"]["eo:cloud_cover"] for item in items)
    middle, scene_id = covers[len(covers) // 2], items[0]["properties"]["cloudseg:scene_id"]
    weights_ids = ",".join({item["properties"]["cloudseg:weights_id"] for item in items})
    warnings, errors = validate_api(
        root_url=root,
        ccs_to_validate=CLASSES,
        collection="masks",
        geometry=json.dumps(AREA),
        auth_bearer_token=None,
        auth_query_parameter=None,
        fields_nested_property="properties.eo:cloud_cover",
        validate_pagination=True,
        query_config=QueryConfig(
            "eo:cloud_cover",
            *[str(middle)] * 6,
            "cloudseg:scene_id",
            scene_id[:6],
            scene_id[-3:],
            scene_id[5:9],
            "cloudseg:weights_id",
            weights_ids,
        ),
        transaction_collection=None,
        headers=None,
        open_assets_urls=False,
    )
    found = [str(error) for error in errors]
    unexpected = [error for error in found if not any(re.search(pattern, error) for pattern in EXPECTED)]
    assert unexpected == [], "\n".join(unexpected)
    assert not [warning for warning in warnings if "conform" in str(warning)]
