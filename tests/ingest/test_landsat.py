"""Landsat 4 to 9, one file per band: scale from the metadata file in its three forms, or one clear refusal."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cloudseg.ingest.candidate import Candidate, UnmatchedFile
from cloudseg.ingest.inbox import open_inbox
from cloudseg.ingest.layouts import find_candidates
from cloudseg.storage import S3Options
from tests.ingest.conftest import Service
from tests.ingest.products import medians, truth, write_bands
from tests.ingest.tiles import random_dn, write

L9 = "LC09_L1TP_199026_20230115_20230315_02_T1"
L7 = "LE07_L1TP_199026_20020801_20200916_02_T1"
L5_SR = "LT05_L2SP_199026_20110716_20200916_02_T1"
L8_SR = "LC08_L2SP_199026_20230107_20230110_02_T1"
VISIBLE = ("red", "green", "blue", "nir")
SINE = float(np.sin(np.radians(18.5)))
OLI_FILES = {"B2": "blue", "B3": "green", "B4": "red", "B5": "nir"}
TM_FILES = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir"}
# Gains of ETM+ differ by band (USGS, MTL of a scene of 2002).
ETM_GAIN = {"1": (1.2483e-3, -0.0095), "2": (1.3857e-3, -0.0101), "3": (1.2730e-3, -0.0111), "4": (1.9253e-3, -0.0115)}

Groups = dict[str, dict[str, str]]


def level_1(spacecraft: str, day: str, scales: dict[str, tuple[float, float]], sun: float = 18.5) -> Groups:
    """Return the groups of a Collection 2 Level-1 metadata file."""
    rescaling = {f"REFLECTANCE_MULT_BAND_{band}": f"{mult:.7E}" for band, (mult, _) in scales.items()}
    rescaling |= {f"REFLECTANCE_ADD_BAND_{band}": f"{add:.6f}" for band, (_, add) in scales.items()}
    return {
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": spacecraft,
            "DATE_ACQUIRED": day,
            "SCENE_CENTER_TIME": "10:40:11.2000000Z",
            "SUN_ELEVATION": f"{sun:.8f}",
        },
        "LEVEL1_RADIOMETRIC_RESCALING": rescaling,
    }


def collection_1(groups: Groups) -> Groups:
    """Return the same values in the groups of Collection 1."""
    image = groups["IMAGE_ATTRIBUTES"]
    return {
        "PRODUCT_METADATA": {key: value for key, value in image.items() if key != "SUN_ELEVATION"},
        "IMAGE_ATTRIBUTES": {"SUN_ELEVATION": image["SUN_ELEVATION"]},
        "RADIOMETRIC_RESCALING": groups["LEVEL1_RADIOMETRIC_RESCALING"],
    }


def as_text(groups: Groups, root: str = "LANDSAT_METADATA_FILE", end: str = "\n") -> str:
    lines = [f"GROUP = {root}"]
    for group, values in groups.items():
        lines += [f"  GROUP = {group}", *(f'    {name} = "{value}"' for name, value in values.items())]
        lines += [f"  END_GROUP = {group}"]
    return end.join([*lines, f"END_GROUP = {root}", "END", ""])


def as_json(groups: Groups) -> str:
    return json.dumps({"LANDSAT_METADATA_FILE": groups}, indent=2)


def as_xml(groups: Groups) -> str:
    inner = "".join(
        f"<{group}>" + "".join(f"<{name}>{value}</{name}>" for name, value in values.items()) + f"</{group}>"
        for group, values in groups.items()
    )
    head = '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>\n'
    return f"{head}<LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>"


FORMS: dict[str, tuple[str, Callable[[Groups], str]]] = {
    "text": ("txt", as_text),
    "text of Windows": ("txt", lambda groups: as_text(groups, end="\r\n")),
    "text of Collection 1": ("txt", lambda groups: as_text(collection_1(groups), "L1_METADATA_FILE")),
    "json": ("json", as_json),
    "json with a byte order mark": ("json", lambda groups: "\ufeff" + as_json(groups)),
    "json of Collection 1": ("json", lambda groups: json.dumps({"L1_METADATA_FILE": collection_1(groups)})),
    "xml": ("xml", as_xml),
}
OLI_GROUPS = level_1("LANDSAT_9", "2023-01-15", {str(band): (2e-5, -0.1) for band in range(1, 10)})


def write_l9(inbox: Path) -> None:
    for code, band in OLI_FILES.items():
        write_bands(inbox / f"{L9}_{code}.TIF", [band], lambda values: (values * SINE + 0.1) / 2e-5)


def write_l7(inbox: Path, sine: float = SINE) -> None:
    for code, band in TM_FILES.items():
        mult, add = ETM_GAIN[code[1:]]
        path = inbox / f"{L7}_{code}.TIF"
        write_bands(path, [band], lambda values: np.minimum((values * sine - add) / mult, 255), dtype="uint8", nodata=0)  # noqa: B023


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_metadata_gives_the_same_reflectance(service: Service, inbox: Path, form: str) -> None:
    write_l9(inbox)
    suffix, write_form = FORMS[form]
    (inbox / f"{L9}_MTL.{suffix}").write_bytes(write_form(OLI_GROUPS).encode())
    assert service.ingest(inbox).quarantined == []
    scene = service.scenes()[L9]
    assert medians(service, L9) == truth(*VISIBLE)
    assert (scene.sensor, scene.acquired_at) == ("landsat-9-l1", datetime(2023, 1, 15, 10, 40, 11, tzinfo=UTC))
    assert scene.radiometry == "Landsat MTL, divided by the sine of the sun's elevation 18.50000000"


def test_without_metadata_the_catalog_says_that_the_scale_is_a_default(service: Service, inbox: Path) -> None:
    write_l9(inbox)
    service.ingest(inbox)
    assert "default scale, not corrected for the sun's elevation" in service.scenes()[L9].radiometry
    assert "MTL" not in service.scenes()[L9].radiometry
    (item,) = find_candidates(open_inbox(str(inbox), service.store, S3Options()))
    assert isinstance(item, Candidate)
    assert all(source.radiometry is not None and source.radiometry.guessed for source in item.files)


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><LANDSAT_METADATA_FILE>&b;</LANDSAT_METADATA_FILE>'
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><LANDSAT_METADATA_FILE>&a;</LANDSAT_METADATA_FILE>'
OTHER_DAY = as_text(level_1("LANDSAT_9", "2023-01-31", {str(band): (2e-5, -0.1) for band in range(1, 10)}))
OTHER_SATELLITE = as_json(level_1("LANDSAT_8", "2023-01-15", {str(band): (2e-5, -0.1) for band in range(1, 10)}))
NIGHT = as_text(level_1("LANDSAT_9", "2023-01-15", {str(band): (2e-5, -0.1) for band in range(1, 10)}, sun=-12))


@pytest.mark.parametrize(
    ("suffix", "text", "what"),
    [
        ("txt", "", "the Landsat metadata file is damaged"),
        ("json", as_json(OLI_GROUPS)[:400], "the Landsat metadata file is damaged"),
        ("json", "[" * 100_000, "the Landsat metadata file is damaged"),
        ("json", "[1, 2]", "the Landsat metadata file is damaged"),
        ("xml", as_xml(OLI_GROUPS)[:400], "the Landsat metadata file is damaged"),
        ("xml", BOMB, "the Landsat metadata file is damaged"),
        ("xml", OUTSIDE, "the Landsat metadata file is damaged"),
        ("xml", "<a>" * 50_000, "the Landsat metadata file is damaged"),
        ("txt", as_text(OLI_GROUPS)[:400], "the Landsat metadata file has no usable REFLECTANCE_"),
        ("txt", as_text(OLI_GROUPS).replace("2.0000000E-05", "NaN"), "has no usable REFLECTANCE_MULT_BAND_"),
        ("txt", as_text(OLI_GROUPS).replace("2.0000000E-05", "2,0E-05"), "has no usable REFLECTANCE_MULT_BAND_"),
        ("txt", NIGHT, "has no usable SUN_ELEVATION"),
        ("txt", OTHER_DAY, "the Landsat metadata file contradicts the product id"),
        ("json", OTHER_SATELLITE, "the Landsat metadata file contradicts the product id"),
    ],
)
def test_metadata_that_cannot_be_used_refuses_the_product(
    service: Service, inbox: Path, suffix: str, text: str, what: str
) -> None:
    write_l9(inbox)
    (inbox / f"{L9}_MTL.{suffix}").write_text(text)
    (item,) = find_candidates(open_inbox(str(inbox), service.store, S3Options()))
    assert isinstance(item, UnmatchedFile)
    assert what in item.what
    assert f"{L9}_MTL.{suffix}" in (item.found or "")
    assert item.next_step


def test_a_refused_product_is_one_entry_until_its_metadata_is_right(service: Service, inbox: Path) -> None:
    write_l9(inbox)
    metadata = inbox / f"{L9}_MTL.json"
    metadata.write_text(as_json(OLI_GROUPS)[:400])
    assert len(service.ingest(inbox).quarantined) == 1
    assert service.scenes() == {}
    metadata.write_text(as_json(OLI_GROUPS))
    assert len(service.ingest(inbox).added) == 1
    assert service.quarantine() == {}


def test_metadata_files_that_differ_are_refused(service: Service, inbox: Path) -> None:
    write_l9(inbox)
    (inbox / f"{L9}_MTL.txt").write_text(as_text(OLI_GROUPS))
    (inbox / f"{L9}_MTL.xml").write_text(as_xml(OLI_GROUPS).replace("18.5", "28.5"))
    (item,) = find_candidates(open_inbox(str(inbox), service.store, S3Options()))
    assert isinstance(item, UnmatchedFile)
    assert "state different scales for B" in item.what


def test_landsat_7_level_1_of_8_bits(service: Service, inbox: Path) -> None:
    groups = level_1("LANDSAT_7", "2002-08-01", ETM_GAIN, sun=18.5)
    write_l7(inbox)
    for extra in ("B6_VCID_1", "B6_VCID_2", "B7_QA", "QA_PIXEL", "QA_RADSAT", "SAA"):
        write(inbox / f"{L7}_{extra}.TIF", random_dn(1, dtype="uint16"), names=None)
    (inbox / f"{L7}_ANG.txt").write_text("angles")
    (inbox / f"{L7}_GCP.dat").write_text("points")
    (inbox / "gap_mask").mkdir()
    (inbox / "gap_mask" / f"{L7}_GM_B1.TIF.gz").write_bytes(b"\x1f\x8b")
    (inbox / f"{L7}_MTL.txt").write_text(as_text(groups))
    record = service.ingest(inbox)
    assert (len(record.added), record.quarantined) == (1, [])
    scene = service.scenes()[L7]
    assert (scene.sensor, scene.bands, scene.tags["wrs2"]) == ("landsat-7-l1", list(VISIBLE), "199026")
    for band, value in medians(service, L7).items():
        assert value == pytest.approx(truth(band)[band], abs=0.004)  # half a step of 8 bits at this sun


def test_a_packed_band_beside_others_is_an_entry(service: Service, inbox: Path) -> None:
    """Else the scene would lack its near infrared without a word."""
    write_l9(inbox)
    (inbox / f"{L9}_MTL.json").write_text(as_json(OLI_GROUPS))
    (inbox / f"{L9}_B5.TIF").unlink()
    (inbox / "other" / "gap_mask").mkdir(parents=True)
    for packed in (f"{L9}_B5.TIF.gz", f"other/gap_mask/{L7}_GM_B1.TIF.gz"):
        (inbox / packed).write_bytes(b"\x1f\x8b")
    assert len(service.ingest(inbox).added) == 1
    entries = service.quarantine()
    assert sorted(entries) == [f"{L9}_B5.TIF.gz", f"{L7}_GM_B1.TIF.gz"]
    assert {entry.what for entry in entries.values()} == {"an archive is not read: unpack it first"}


@pytest.mark.parametrize("beside", [None, 'GROUP = LANDSAT_METADATA_FILE\n  SPACECRAFT_ID = "LANDSAT_7"\nEND\n'])
def test_landsat_7_level_1_without_a_scale_is_refused_once(service: Service, inbox: Path, beside: str | None) -> None:
    write_l7(inbox)
    if beside:
        (inbox / f"{L7}_MTL.txt").write_text(beside)
    assert len(service.ingest(inbox).quarantined) == 1
    (entry,) = service.quarantine().values()
    assert ("REFLECTANCE_MULT_BAND" if beside else "have no scale without their MTL file") in entry.what


@pytest.mark.parametrize("with_mtl", [True, False])
@pytest.mark.parametrize("product", [L5_SR, L8_SR])
def test_level_2_is_not_divided_by_the_sun(service: Service, inbox: Path, product: str, with_mtl: bool) -> None:
    files = TM_FILES if product == L5_SR else OLI_FILES
    for code, band in files.items():
        write_bands(inbox / f"{product}_SR_{code}.TIF", [band], lambda values: (values + 0.2) / 2.75e-5, nodata=0)
    thermal = "ST_B6" if product == L5_SR else "ST_B10"
    for extra in (thermal, "SR_QA_AEROSOL", "ST_QA"):
        write(inbox / f"{product}_{extra}.TIF", random_dn(1), names=None)
    if with_mtl:
        spacecraft, day = ("LANDSAT_5", "2011-07-16") if product == L5_SR else ("LANDSAT_8", "2023-01-07")
        groups = level_1(spacecraft, day, {str(band): (2e-5, -0.1) for band in range(1, 8)})
        surface = {f"REFLECTANCE_MULT_BAND_{band}": "2.75e-05" for band in range(1, 8)}
        surface |= {f"REFLECTANCE_ADD_BAND_{band}": "-0.2" for band in range(1, 8)}
        rescaling = {"LEVEL1_RADIOMETRIC_RESCALING": groups.pop("LEVEL1_RADIOMETRIC_RESCALING")}
        both = groups | rescaling | {"LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": surface}
        (inbox / f"{product}_MTL.xml").write_text(as_xml(both))
    assert service.ingest(inbox).quarantined == []
    assert medians(service, product) == truth(*VISIBLE)
    assert ("MTL" in service.scenes()[product].radiometry) == with_mtl


def test_the_quality_layer_comes_along(service: Service, inbox: Path) -> None:
    write_l9(inbox)
    write(inbox / f"{L9}_QA_PIXEL.TIF", np.full((1, 48, 48), 21824, np.uint16), names=None)
    (inbox / f"{L9}_MTL.json").write_text(as_json(OLI_GROUPS))
    (item,) = find_candidates(open_inbox(str(inbox), service.store, S3Options()))
    assert isinstance(item, Candidate)
    assert [(layer.file.name, layer.kind) for layer in item.quality] == [(f"{L9}_QA_PIXEL.TIF", "landsat_qa_pixel")]
    assert service.ingest(inbox).quarantined == []


def test_a_product_without_its_red_band_is_one_entry(service: Service, inbox: Path) -> None:
    write_l9(inbox)
    (inbox / f"{L9}_B4.TIF").unlink()
    (inbox / f"{L9}_MTL.json").write_text(as_json(OLI_GROUPS))
    assert len(service.ingest(inbox).quarantined) == 1
    assert next(iter(service.quarantine().values())).what.startswith("the scene lacks red")


@pytest.mark.parametrize(("product", "groups"), [(L9, OLI_GROUPS), (L7, level_1("LANDSAT_7", "2002-08-01", ETM_GAIN))])
def test_one_file_with_several_bands_is_read_by_the_metadata_beside_it(
    service: Service, inbox: Path, product: str, groups: Groups
) -> None:
    codes = {band: code for code, band in (OLI_FILES if product == L9 else TM_FILES).items()}
    write_bands(
        inbox / f"{product}_stack.tif",
        VISIBLE,
        lambda values: (values * SINE + 0.1) / 2e-5,
        descriptions=[codes[band] for band in VISIBLE],
    )
    write(inbox / f"{product}_QA_PIXEL.TIF", np.full((1, 48, 48), 21824, np.uint16), names=None)
    (inbox / f"{product}_MTL.json").write_text(as_json(groups))
    service.ingest(inbox)
    if product == L9:
        assert medians(service, f"{L9}_stack") == truth(*VISIBLE)
        assert service.quarantine() == {}
    else:  # every band of ETM+ has a scale of its own
        assert "have no scale without the product's metadata" in service.quarantine()[f"{L7}_stack"].what


def test_quality_layers_alone_are_one_entry(service: Service, inbox: Path) -> None:
    for layer in ("QA_PIXEL", "QA_RADSAT", "SAA"):
        write(inbox / f"{L9}_{layer}.TIF", random_dn(1), names=None)
    assert len(service.ingest(inbox).quarantined) == 1
    assert next(iter(service.quarantine().values())).what.startswith("quality layers of a Landsat product without")


def test_cut_bands_have_the_metadata_of_their_product(service: Service, inbox: Path) -> None:
    for code, band in OLI_FILES.items():
        write_bands(inbox / f"{L9}_cut_{code}.TIF", [band], lambda values: (values * SINE + 0.1) / 2e-5)
    (inbox / f"{L9}_MTL.json").write_text(as_json(OLI_GROUPS))
    assert service.ingest(inbox).quarantined == []
    assert medians(service, f"{L9}_cut") == truth(*VISIBLE)


def test_cut_bands_and_an_incomplete_product_beside_them(service: Service, inbox: Path) -> None:
    for code, band in OLI_FILES.items():
        write_bands(inbox / f"{L9}_a_{code}.TIF", [band], lambda values: (values * SINE + 0.1) / 2e-5)
    write_l9(inbox)
    (inbox / f"{L9}_B4.TIF").unlink()
    (inbox / f"{L9}_MTL.json").write_text(as_json(OLI_GROUPS))
    whole, lacking = sorted(
        find_candidates(open_inbox(str(inbox), service.store, S3Options())), key=lambda item: type(item).__name__
    )
    assert isinstance(whole, Candidate)
    assert isinstance(lacking, UnmatchedFile)
    assert {source.file.name for source in whole.files} == {f"{L9}_a_{code}.TIF" for code in OLI_FILES}
    assert lacking.file.name == f"{L9}_B2.TIF"
