"""The QGIS project of a mask: what is in it, that its addresses answer, and (`make qgis`) what QGIS draws of it."""

import io
import json
import os
import shlex
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import rasterio
import serve_world
from defusedxml.ElementTree import fromstring
from fastapi.testclient import TestClient
from PIL import Image

from cloudseg.raster.qgis_project import ProjectLayer, project_qgs
from cloudseg.raster.style import MASK_STYLE, classes_qml, paletted_pipe
from cloudseg.serve.qgis import gdal_source

KEY = "k" * 20
PICTURE = Path(__file__).parents[2] / "examples" / "qgis_picture.py"


def masks_of(client: TestClient) -> dict[tuple[str, int], str]:
    """Return ids of masks by scene name and model version."""
    found = client.get("/features/footprints?limit=100").json()["features"]
    return {(f["properties"]["name"], f["properties"]["model_version"]): f["properties"]["mask_id"] for f in found}


def sources_of(text: str) -> dict[str, str]:
    """Return the addresses of the layers of a project by their ids."""
    layers = fromstring(text).findall("projectlayers/maplayer")
    return {layer.findtext("id").split("_")[0]: layer.findtext("datasource") for layer in layers}


def test_a_project_has_the_mask_above_its_scene_with_the_style_of_the_file(client: TestClient):
    answer = client.get(f"/qgis/{masks_of(client)['scene_0_1', 2]}.qgs")
    assert answer.headers["content-disposition"] == 'attachment; filename="scene_0_1_model_2.qgs"'
    root = fromstring(answer.text)
    tree = [
        (layer.get("id").split("_")[0], layer.get("checked"))
        for layer in root.findall("layer-tree-group/layer-tree-layer")
    ]
    assert tree == [("mask", "Qt::Checked"), ("probability", "Qt::Unchecked"), ("scene", "Qt::Checked")]
    ids = [layer.get("id") for layer in root.findall("layer-tree-group/layer-tree-layer")]
    assert ids == [layer.findtext("id") for layer in root.findall("projectlayers/maplayer")]
    assert min(map(len, ids)) > 10, "QGIS replaces short ones"
    assert root.findtext("projectCrs/spatialrefsys/authid") == "EPSG:32631"
    layers = {layer.findtext("id").split("_")[0]: layer for layer in root.findall("projectlayers/maplayer")}
    entries = [entry.attrib for entry in layers["mask"].iter("paletteEntry")]
    assert entries == [entry.attrib for entry in fromstring(classes_qml(MASK_STYLE)).iter("paletteEntry")]
    assert layers["probability"].find("pipe/rasterrenderer").get("type") == "singlebandpseudocolor"
    scene = layers["scene"].find("pipe/rasterrenderer")
    assert [scene.get(f"{name}Band") for name in ("red", "green", "blue")] == ["1", "2", "3"]
    xmin, ymin, xmax, ymax = (
        float(root.findtext(f"mapcanvas/extent/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    assert (xmin, ymax) == serve_world.PLACES["mgrs:31UDQ"][1:]
    assert (xmax - xmin, ymax - ymin) == (5120.0, 5120.0)


def test_gdal_opens_every_address_of_a_project(server: str):
    with urllib.request.urlopen(f"{server}/features/footprints?limit=1") as answer:
        mask = json.load(answer)["features"][0]["properties"]["mask_id"]
    with urllib.request.urlopen(f"{server}/qgis/{mask}.qgs") as answer:
        sources = sources_of(answer.read().decode())
    bands = {}
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        for name, source in sources.items():
            with rasterio.open(source) as dataset:
                bands[name] = dataset.descriptions
    assert bands == {
        "mask": ("cloud mask",),
        "probability": ("cloud probability",),
        "scene": ("red", "green", "blue", "nir"),
    }


def test_the_key_goes_into_our_addresses_and_to_no_other_host(client_with):
    locked = client_with(serve_api_keys=KEY)
    locked.headers["x-api-key"] = KEY
    mask = masks_of(locked)["scene_0_1", 2]
    with_key = sources_of(locked.get(f"/qgis/{mask}.qgs?api_key={KEY}").text)
    for source in with_key.values():
        address = source.removeprefix("/vsicurl/http://maps.test")
        del locked.headers["x-api-key"]
        assert locked.get(address).status_code == 200
        locked.headers["x-api-key"] = KEY
    elsewhere = client_with(serve_api_keys=KEY, public_url="https://cdn.example.org/masks")
    sources = sources_of(elsewhere.get(f"/qgis/{mask}.qgs?api_key={KEY}").text)
    assert all(source.startswith("/vsicurl/https://cdn.example.org/masks/") for source in sources.values())
    assert KEY not in "".join(sources.values())


def test_a_project_of_nothing_is_refused(client: TestClient):
    assert client.get("/qgis/mk-0000.qgs").status_code == 404
    assert client.get("/qgis/sc-0000.qgs").status_code == 400


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("https://a.example/b.tif", "/vsicurl/https://a.example/b.tif"),
        ("/data/a.tif", "/data/a.tif"),
    ],
)
def test_how_gdal_opens_an_address(address: str, expected: str):
    assert gdal_source(address) == expected


def test_a_crs_without_a_code_is_written_as_wkt():
    wkt = rasterio.CRS.from_proj4("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m").to_wkt()
    layer = ProjectLayer("mask", "Mask", "/a & b.tif", paletted_pipe(MASK_STYLE))
    root = fromstring(project_qgs("<title>", [layer], wkt, (0, 0, 1, 1)))
    assert root.findtext("projectCrs/spatialrefsys/authid") == ""
    assert "Lambert_Azimuthal_Equal_Area" in root.findtext("projectCrs/spatialrefsys/wkt")
    assert root.findtext("projectlayers/maplayer/datasource") == "/a & b.tif"


@pytest.mark.qgis
def test_qgis_draws_the_mask_in_its_style_over_the_scene(server: str, tmp_path: Path):
    """Model 2's disc has a radius of 36 pixels, the scene's white cloud of 28: between them, it covers dark ground."""
    folder = Path(os.environ.get("QGIS_PICTURES", tmp_path))
    with urllib.request.urlopen(f"{server}/features/footprints?limit=100") as answer:
        found = [feature["properties"] for feature in json.load(answer)["features"]]
    mask = next(f["mask_id"] for f in found if (f["name"], f["model_version"]) == ("scene_0_1", 2))
    project, picture = folder / "mask.qgs", folder / "mask.png"
    with urllib.request.urlopen(f"{server}/qgis/{mask}.qgs") as answer:
        project.write_bytes(answer.read())
    command = [*shlex.split(os.environ["QGIS_PYTHON"]), str(PICTURE), str(project), str(picture)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert tuple(map(int, told["qgis"].split("-")[0].split("."))) >= (3, 34)
    assert told["crs"] == "EPSG:32631"
    layers = {layer["name"]: layer for layer in told["layers"]}
    assert layers["Mask, model 2"]["legend"] == ["Clear", "Cloud"]
    assert layers["Mask, model 2"]["renderer"] == "paletted"
    assert layers["Probability, model 2"]["renderer"] == "singlebandpseudocolor"
    assert layers["scene_0_1"]["renderer"] == "multibandcolor"
    assert all(layer["crs"] == "EPSG:32631" and layer["size"] == [256, 256] for layer in layers.values())
    pixels = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGBA")).astype(int)
    assert pixels.shape[:2] == (512, 512)

    def at(row: int, col: int) -> list[int]:
        return pixels[2 * row, 2 * col].tolist()

    ground, brightest = 810 / 3558 * 255, 245 * 200 / 255
    assert at(40, 60)[:3] == pytest.approx([ground] * 3, abs=2), "clear ground is seen as it is"
    assert at(128, 124)[:3] == pytest.approx([255 * 55 / 255 + brightest] * 3, abs=2), "cloud over the scene's cloud"
    assert at(128, 156)[:3] == pytest.approx([ground * 55 / 255 + brightest] * 3, abs=2), "cloud over dark ground"
    assert at(128, 5)[3] == 0 or at(128, 5)[:3] == [255, 255, 255], "no data is not drawn"
