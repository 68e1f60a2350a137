"""Archives, stores and products are one quarantine entry each; leftovers of systems and downloads are none."""

import unicodedata
from pathlib import Path

from tests.ingest.conftest import Service
from tests.ingest.tiles import clouds, random_dn, write

PRODUCT = "S2A_MSIL1C_20230801T105621_N0400_R094_T31UDQ_20230801T125000.SAFE"


ARCHIVES = {
    "S2A_x.SAFE.zip": "unzip S2A_x.SAFE.zip",
    "S2A_y.ZIP": "unzip S2A_y.ZIP",
    "LC08_x.tar": "tar xf LC08_x.tar",
    "LC08 x.tar.gz": "tar xf 'LC08 x.tar.gz'",
    "LC08_x.tgz": "tar xf LC08_x.tgz",
    "labels/a.tar.bz2": "tar xf a.tar.bz2",
    "labels/a.7z": "7z x a.7z",
    "a.rar": "unrar x a.rar",
    "a.tif.gz": "gunzip a.tif.gz",
}
LEFTOVERS = [
    *("Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/._a.tif", "__MACOSX/b.tif", "._a.tif", "@eaDir/a.tif"),
    *("b.tif.download", "c.tif.download/c.tif", "b.tif.opdownload", "b.tif.crdownload", "b.tif.part", "b.tif.tmp"),
    *("b.tif.rsync.XYZ", ".b.tif.Ab12Cd", "b.tif.aria2", "b.tif.filepart", "b.zip.part"),
    *("map.qgz~", "map.qgs~", ".~lock.a.ods#", "~$notes.docx", "a.sr.lock", "masks.gpkg-wal"),
]


def test_an_archive_is_one_entry_that_says_how_to_unpack_it(service: Service, inbox: Path) -> None:
    _touch(inbox, *ARCHIVES)
    service.ingest(inbox)
    entries = service.quarantine()
    assert {entry.what for entry in entries.values()} == {"an archive is not read: unpack it first"}
    assert {name: entry.next_step for name, entry in entries.items()} == {
        path.rpartition("/")[2]: f"In its folder: {command}; then remove the archive."
        for path, command in ARCHIVES.items()
    }
    assert service.ingest(inbox).still_quarantined == len(ARCHIVES)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_a_store_is_one_entry(service: Service, inbox: Path) -> None:
    _touch(inbox, *[f"deep/cube.zarr/blue/{row}.{col}" for row in range(3) for col in range(3)], "cube2.Zarr/zarr.json")
    _touch(inbox, "cube2.Zarr/red/c/0.tif", "places.gdb/a00000001.gdbtable", "places.gdb/timestamps")
    _touch(inbox, "S3A_OL_1_EFR____20230801.SEN3/Oa01_radiance.nc", "S3A_OL_1_EFR____20230801.SEN3/xfdumanifest.xml")
    write(inbox / "a.tif", random_dn())
    record = service.ingest(inbox)
    assert set(service.scenes()) == {"a"}
    entries = service.quarantine()
    assert {name: (entry.what, entry.found) for name, entry in entries.items()} == {
        "cube.zarr": ("a Zarr store is not read", "a folder of 9 files"),
        "cube2.Zarr": ("a Zarr store is not read", "a folder of 2 files"),
        "places.gdb": ("a file geodatabase is not read", "a folder of 2 files"),
        "S3A_OL_1_EFR____20230801.SEN3": ("a Sentinel-3 product is not read", "a folder of 2 files"),
    }
    assert entries["cube.zarr"].source_uri == f"{inbox.as_uri()}/deep/cube.zarr"
    again = service.ingest(inbox)
    assert (again.quarantined, again.still_quarantined) == ([], len(record.quarantined))


def test_what_remains_of_a_product_makes_no_entry(service: Service, inbox: Path) -> None:
    granule = inbox / PRODUCT / "GRANULE" / "L1C_T31UDQ_A042343_20230801T105937"
    for index, code in enumerate(("B02", "B03", "B04", "B08")):
        pixels = random_dn(1, seed=index)
        write(granule / "IMG_DATA" / f"T31UDQ_20230801T105621_{code}.tif", pixels, names=None)
    _touch(granule, "AUX_DATA/AUX_ECMWFT", "QI_DATA/MSK_CLASSI_B00.jp2", "QI_DATA/T31UDQ_20230801T105621_PVI.jp2")
    _touch(
        inbox / PRODUCT, "HTML/UserProduct_index.xsl", "rep_info/S2_User_Product.xsd", "DATASTRIP/x/QI_DATA/a.unknown"
    )
    service.ingest(inbox)
    assert list(service.scenes()) == [PRODUCT.removesuffix(".SAFE")]
    assert service.quarantine() == {}


def test_a_product_that_nothing_reads_is_one_entry(service: Service, inbox: Path) -> None:
    name = "S1A_IW_GRDH_1SDV_20230801T173206_20230801T173231_049688_05F99A_0C2B.SAFE"
    _touch(inbox / name, "measurement/s1a-iw-grd-vv.tiff", "measurement/s1a-iw-grd-vh.tiff", "annotation/a.unknown")
    service.ingest(inbox)
    (entry,) = service.quarantine().values()
    assert (entry.name, entry.what) == (name, "no layout recognizes this product")


def test_leftovers_are_passed_over(service: Service, inbox: Path) -> None:
    _touch(inbox, *LEFTOVERS)
    write(inbox / "a (1).tif", random_dn())
    record = service.ingest(inbox)
    assert (len(record.added), record.quarantined) == (1, [])
    assert set(service.scenes()) == {"a (1)"}


def test_a_file_beside_the_state_of_its_download_is_unfinished(service: Service, inbox: Path) -> None:
    write(inbox / "a.tif", random_dn())
    _touch(inbox, "a.tif.aria2")
    assert service.ingest(inbox).added == []
    assert service.quarantine() == {}
    (inbox / "a.tif.aria2").unlink()
    assert len(service.ingest(inbox).added) == 1


def test_other_unknown_files_stay_entries_one_for_a_name(service: Service, inbox: Path) -> None:
    _touch(inbox, "scene.hdr", "scene.dat", "scene.vrt", "a.nc", "b.backup", "noname", "data.db")
    service.ingest(inbox)
    assert {name: entry.found for name, entry in service.quarantine().items()} == {
        "scene.dat": "suffix .dat, .hdr, .vrt",
        "a.nc": "suffix .nc",
        "b.backup": "suffix .backup",
        "data.db": "suffix .db",
        "noname": "a name without suffix",
    }


def test_a_virtual_raster_says_what_to_do(service: Service, inbox: Path) -> None:
    (inbox / "mosaic.vrt").write_text("<VRTDataset/>")
    service.ingest(inbox)
    assert "virtual raster" in service.quarantine()["mosaic.vrt"].what


def test_a_name_is_the_same_in_every_unicode_normal_form(service: Service, inbox: Path) -> None:
    name = unicodedata.normalize("NFC", "Orléans_été_Å")
    other = unicodedata.normalize("NFD", name)
    assert name != other
    write(inbox / "images" / f"{name}.tif", random_dn())
    write(inbox / "labels" / f"{other}.tif", clouds(), names=["label"])
    write(inbox / "images" / other / "b.tif", random_dn(seed=1))
    write(inbox / "labels" / name / "b.tif", clouds(), names=["label"])
    record = service.ingest(inbox)
    assert (len(record.added), len(record.labelled), record.quarantined) == (2, 2, [])
    assert set(service.scenes()) == {name, "b"}
    write(inbox / "later" / "labels" / f"{other}.tif", 1 - clouds(), names=["label"])
    assert len(service.ingest(inbox / "later").labelled) == 1


def test_two_files_whose_names_look_the_same_are_not_both_read(service: Service, inbox: Path) -> None:
    for index, form in enumerate(("NFC", "NFD")):
        write(inbox / f"{unicodedata.normalize(form, 'été')}.tif", random_dn(seed=index))  # type: ignore[arg-type]
    service.ingest(inbox)
    assert set(service.scenes()) == {"été"}
    (entry,) = service.quarantine().values()
    assert entry.what == "another file has the same name in another Unicode normal form"
    assert entry.name == r"e\xcc\x81te\xcc\x81.tif"


def test_scenes_of_one_name_are_told_apart_by_their_folders(service: Service, inbox: Path) -> None:
    paths = [
        "2023-05-01/images/a.tif",
        "2023-05-06/images/a.tif",
        "2023-05-06/images/b.tif",
        "north/2023/c.tif",
        "north/2024/c.tif",
        "south/2024/c.tif",
        "d.tif",
        "x/d.tif",
        "e.tif",
        "e.tiff",
        "x_d.tif",
    ]
    for index, path in enumerate(paths):
        write(inbox / path, random_dn(seed=index))
    (inbox / "2023-05-06" / "labels").mkdir()
    write(inbox / "2023-05-01" / "labels" / "a.tif", clouds(), names=["label"])
    assert len(service.ingest(inbox).labelled) == 1
    names = {scene.source_uri.removeprefix(f"{inbox.as_uri()}/"): name for name, scene in service.scenes().items()}
    assert names == {
        "2023-05-01/images/a.tif": "2023-05-01_a",
        "2023-05-06/images/a.tif": "2023-05-06_a",
        "2023-05-06/images/b.tif": "b",
        "north/2023/c.tif": "north_2023_c",
        "north/2024/c.tif": "north_2024_c",
        "south/2024/c.tif": "south_2024_c",
        "d.tif": "d",
        "x/d.tif": "x_d_d.tif",
        "e.tif": "e_tif",
        "e.tiff": "e_tiff",
        "x_d.tif": "x_d",
    }
    again = service.ingest(inbox)
    assert (again.added, again.known) == ([], len(paths))
    assert service.labels(service.scenes()["2023-05-01_a"])
    assert not service.labels(service.scenes()["2023-05-06_a"])
