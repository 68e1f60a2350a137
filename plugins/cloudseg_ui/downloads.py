"""Files of models, masks and scenes, and the reports of evaluations: streamed from the store, checksum compared.

A route names an id and a file; the row of the id says which objects there are, so no key and no path is in an address.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cloudseg_ui.shell import Render
from fastapi import FastAPI, Request, Response
from fastapi import Path as InPath
from sqlalchemy import Connection

from cloudseg.catalog import model_rows, scene_rows
from cloudseg.errors import NotInCatalog
from cloudseg.records import Evaluation, Json, Mask, Scene, StoredObject, Weights
from cloudseg.runtime import Runtime
from cloudseg.serve.object_response import object_response
from cloudseg.storage import Store

REPORT: Final = "report"
TITLES: Final = {
    "weights": "Weights, safetensors",
    "onnx": "ONNX export",
    "int8": "ONNX export in int8",
    "card": "Model card, Markdown",
    "item": "STAC item",
    "golden": "Golden sample",
    REPORT: "Evaluation report, HTML",
    "mask": "Mask, GeoTIFF",
    "probability": "Probability, GeoTIFF",
    "thumbnail": "Thumbnail",
    "mask_style": "QGIS style of the mask",
    "probability_style": "QGIS style of the probability",
    "image": "Scene, GeoTIFF",
}
_FileName = Annotated[str, InPath(pattern=r"^[a-z0-9_]{1,40}$")]
_WeightsId = Annotated[str, InPath(pattern=r"^w-[0-9a-z-]{1,60}$")]
_MaskId = Annotated[str, InPath(pattern=r"^mk-[0-9a-z-]{1,60}$")]
_SceneId = Annotated[str, InPath(pattern=r"^sc-[0-9a-z-]{1,60}$")]


@dataclass(frozen=True)
class Download:
    """A line of a list of files."""

    name: str
    title: str
    path: str
    """Of the route, after the prefix of the pages."""
    size: int
    sha256: str
    command: str
    """Copies the file on a machine that reaches the store."""


def weights_objects(weights: Weights, evaluation: Evaluation | None) -> dict[str, StoredObject]:
    """Return the objects of a model by name, with the report of its evaluation."""
    found = {"weights": _own(weights), **_parsed(weights.companions)}
    if evaluation is not None and "html" in evaluation.report:
        found[REPORT] = StoredObject.model_validate(evaluation.report["html"])
    return found


def mask_objects(mask: Mask) -> dict[str, StoredObject]:
    """Return the objects of a mask by name."""
    return {"mask": _own(mask), **_parsed(mask.companions)}


def _own(row: Weights | Mask | Scene) -> StoredObject:
    return StoredObject(key=row.key, sha256=row.sha256, size=row.size)


def _parsed(companions: Json) -> dict[str, StoredObject]:
    return {name: StoredObject.model_validate(stored) for name, stored in companions.items()}


def list_downloads(store: Store, prefix: str, owner: str, objects: Mapping[str, StoredObject]) -> list[Download]:
    """Return the lines of a list of files.

    Args:
        store: holds them.
        prefix: of their routes, such as `/masks/mk-1`.
        owner: id in the names of the saved files.
        objects: by name.
    """
    return [
        Download(
            name,
            TITLES.get(name, name),
            f"{prefix}/files/{name}",
            stored.size,
            stored.sha256,
            _command(store.uri_of(stored.key), f"{owner}_{name}{stored.key[stored.key.rfind('.') :]}"),
        )
        for name, stored in objects.items()
    ]


def _command(uri: str, name: str) -> str:
    address = urlsplit(uri)
    if address.scheme == "file":
        return shlex.join(["cp", url2pathname(address.path), name])
    return shlex.join(["aws", "s3", "cp", uri, name])


def held_out(db: Connection, weights_id: str) -> Evaluation | None:
    """Return the newest evaluation of weights on held-out places, or None."""
    return next((found for found in model_rows.list_evaluations(db, weights_id) if found.split == "held_out"), None)


def add_downloads(app: FastAPI, runtime: Callable[[], Runtime], render: Render) -> None:
    """Add the routes to an app that has the login as a dependency of every route."""

    @app.get("/weights/{weights_id}/files/{name}")
    def weights_file(request: Request, weights_id: _WeightsId, name: _FileName) -> Response:
        with runtime().catalog.read() as db:
            found = weights_objects(model_rows.get_weights(db, weights_id), held_out(db, weights_id))
        return _send(request, runtime().store, weights_id, name, found)

    @app.get("/masks/{mask_id}/files/{name}")
    def mask_file(request: Request, mask_id: _MaskId, name: _FileName) -> Response:
        with runtime().catalog.read() as db:
            found = mask_objects(model_rows.get_mask(db, mask_id))
        return _send(request, runtime().store, mask_id, name, found)

    @app.get("/scenes/{scene_id}/files/{name}")
    def scene_file(request: Request, scene_id: _SceneId, name: _FileName) -> Response:
        with runtime().catalog.read() as db:
            scene = scene_rows.get_scene(db, scene_id)
        # A scene that is kept for training only: its provider may not allow that it is handed on.
        return _send(request, runtime().store, scene_id, name, {"image": _own(scene)} if scene.publishable else {})


def _send(request: Request, store: Store, owner: str, name: str, objects: Mapping[str, StoredObject]) -> Response:
    """Return a file as an attachment.

    Raises:
        NotInCatalog: there is no such file.
    """
    if name not in objects:
        raise NotInCatalog("no such file", subject=owner, found=name, expected=", ".join(sorted(objects)) or "none")
    stored = objects[name]
    response = object_response(request, store, stored.key, stored.sha256, f"{owner}_{name}")
    # Behind a login: no shared cache may keep it.
    response.headers["Cache-Control"] = "private, max-age=86400, immutable"
    return response
