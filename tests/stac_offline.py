"""The schemas of STAC for clients that want them from the network: from files, and no other host is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from pystac.validation import jsonschemas

_PACKAGE = Path(jsonschemas.__file__).parent
_CORE = "https://schemas.stacspec.org/v1.1.0"
_ANYTHING: dict[str, Any] = {}
"""What stands in for a schema that is not at hand."""


def known_schemas(extensions: Path | None = None) -> dict[str, Any]:
    """Return schemas by address: those of the core, which pystac brings, and those of a folder."""
    found = {}
    for file in (_PACKAGE / "stac-spec" / "v1.1.0").glob("*.json"):
        kind = file.stem if file.stem in ("catalog", "collection") else "item"
        found[f"{_CORE}/{kind}-spec/json-schema/{file.name}"] = json.loads(file.read_text())
    for file in (_PACKAGE / "geojson").glob("*.json"):
        found[f"https://geojson.org/schema/{file.name}"] = json.loads(file.read_text())
    for file in extensions.glob("*.json") if extensions else ():
        schema = json.loads(file.read_text())
        found[schema["$id"].rstrip("#")] = schema
    return found


def stay_offline(patch: pytest.MonkeyPatch, extensions: Path | None) -> None:
    """Answer requests to other hosts than this machine with schemas."""
    schemas, send = known_schemas(extensions), requests.Session.send

    def answer(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        address = str(request.url).partition("#")[0]
        if address.startswith("http://127.0.0.1:"):
            return send(session, request, **options)
        found = requests.Response()
        found.url, found.request, found.status_code = address, request, 200
        found.headers["content-type"] = "application/json"
        if address not in schemas and not address.endswith("/schema.json"):
            raise AssertionError(f"{address} is not of this machine")
        found._content = json.dumps(schemas.get(address, _ANYTHING)).encode()
        return found

    patch.setattr(requests.Session, "send", answer)
