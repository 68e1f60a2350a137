"""Citations of public data sets, so that a figure made from them names them."""

from collections.abc import Iterable
from typing import Final

from cloudseg.evaluate.scene import Facts

_CITATIONS: Final = (
    (
        ("s2-cloud-mask-catalogue", "s2_catalogue", "4172871"),
        "Sentinel-2 Cloud Mask Catalogue: Francis, Mrziglod, Sidiropoulos and Muller (2020), Zenodo 4172871.",
    ),
    (
        ("on-cloud-n", "oncloudn"),
        "On Cloud N cloud cover detection: DrivenData, Microsoft AI for Earth and Radiant Earth (2021).",
    ),
    (("cloudsen12",), "CloudSEN12: Aybar et al. (2022), Scientific Data 9, 782."),
    (("38-cloud", "38cloud", "95-cloud"), "38-Cloud: Mohajerani and Saeedi (2018, 2019)."),
    (("l8-biome", "l8biome"), "Landsat-8 Biome cloud validation masks: Foga et al. (2017), U.S. Geological Survey."),
    (("synthetic",), "Synthetic scenes, made by cloudseg from a seed: no satellite took them."),
)
_SENTINEL: Final = "Contains modified Copernicus Sentinel data."
_LANDSAT: Final = "Landsat data courtesy of the U.S. Geological Survey."


def citations(facts: Iterable[Facts]) -> list[str]:
    """List what must be cited for these scenes, as far as label sources, addresses, tags and sensors are recognised."""
    known = list(facts)
    words = " ".join(
        " ".join((fact.source, fact.source_uri, fact.scene.source_uri, *map(str, fact.scene.tags.values())))
        for fact in known
    )
    found = [text for names, text in _CITATIONS if any(name in words.lower() for name in names)]
    sensors = {fact.scene.sensor.partition("-")[0] for fact in known}
    return found + [text for sensor, text in (("sentinel", _SENTINEL), ("landsat", _LANDSAT)) if sensor in sensors]
