"""Platform, constellation, instruments and producer of a scene, from the name of its sensor.

Names as in the collections of earth-search (Sentinel-2) and of USGS (Landsat), so that one search finds both theirs
and ours.
"""

import re
from typing import Final, NamedTuple

from cloudseg.records import Json, Scene


class _Sensor(NamedTuple):
    pattern: str
    constellation: str
    instruments: list[str]
    producer: str
    url: str


_USGS: Final = ("USGS", "https://www.usgs.gov/landsat-missions")
_PLANET: Final = ("Planet", "https://www.planet.com")
_SENSORS: Final = (
    _Sensor("sentinel-2", "sentinel-2", ["msi"], "ESA", "https://sentinels.copernicus.eu"),
    _Sensor("landsat-[45]", "landsat", ["tm"], *_USGS),
    _Sensor("landsat-7", "landsat", ["etm+"], *_USGS),
    _Sensor("landsat-[89]", "landsat", ["oli", "tirs"], *_USGS),
    _Sensor("hls", "hls", ["msi", "oli"], "NASA LP DAAC", "https://lpdaac.usgs.gov"),
    _Sensor("planetscope", "planetscope", [], *_PLANET),
    _Sensor("rapideye", "rapideye", ["msi"], *_PLANET),
)


def describe_sensor(scene: Scene) -> Json:
    """Return `platform`, `constellation` and `instruments` of STAC's common metadata, as far as they are known."""
    if (sensor := _find(scene)) is None:
        return {}
    platform = _platform(scene)
    return {
        **({"platform": platform} if platform else {}),
        "constellation": sensor.constellation,
        **({"instruments": sensor.instruments} if sensor.instruments else {}),
    }


def producer_of(scene: Scene) -> Json | None:
    """Return the STAC provider who made the image, None for an unknown sensor."""
    sensor = _find(scene)
    return {"name": sensor.producer, "url": sensor.url, "roles": ["producer", "licensor"]} if sensor else None


def _find(scene: Scene) -> _Sensor | None:
    return next((sensor for sensor in _SENSORS if re.match(sensor.pattern, scene.sensor)), None)


def _platform(scene: Scene) -> str | None:
    """Return the satellite: Landsat's is in the name of the sensor, Sentinel-2's begins the name of a product."""
    if landsat := re.match(r"landsat-\d", scene.sensor):
        return landsat[0]
    product = re.match(r"S2([A-D])_", scene.name)
    return f"sentinel-2{product[1].lower()}" if product and scene.sensor.startswith("sentinel-2") else None
