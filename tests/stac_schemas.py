"""Validation of STAC items by the JSON schemas of their extensions, without a network.

The schemas are data beside the checkout (fixture `shared_data`), not part of it. A schema of another version than the
one that the item names is not used, except where the caller says that it may be.
"""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from pystac.validation.jsonschemas import __file__ as _core
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

_GEOMETRY = Path(_core).parent / "geojson" / "Geometry.json"
_ANYTHING: dict[str, Any] = {"properties": {"data_type": {}, "processing:expression": {}}}
_UNKNOWN = {"definitions": {"bands": {"items": _ANYTHING}, "fields": _ANYTHING}}
"""What stands in for a version that is not at hand and that another schema refers to."""


def validate_extensions(item: dict[str, Any], folder: Path, **other_versions: str) -> set[str]:
    """Validate an item and return the names of the extensions whose schema was used.

    `other_versions` maps the name of an extension to the version in the item that the schema at hand stands in for.
    """
    schemas = {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}
    known = {schema["$id"].rstrip("#"): schema for schema in schemas.values()}

    def retrieve(uri: str) -> Resource[Any]:
        if "Geometry.json" in uri:
            return DRAFT7.create_resource(json.loads(_GEOMETRY.read_text()))
        return DRAFT7.create_resource(known.get(uri.rstrip("#"), _UNKNOWN))

    text, used = json.dumps(item), set()
    for name, version in other_versions.items():
        there = schemas[name]["$id"].rstrip("#")
        text = text.replace(f"/{name}/v{version}/schema.json", there.partition("stac-extensions.github.io")[2])
    item = json.loads(text)
    for uri in item["stac_extensions"]:
        if (schema := known.get(uri)) is not None:
            Draft7Validator(schema, registry=Registry(retrieve=retrieve)).validate(item)
            used.add(uri.split("/")[3])
    return used
