"""The pages of data, quarantine and drift: what they show, paging, escaping; they write nothing."""

from datetime import timedelta

from fastapi.testclient import TestClient
from plugin_rows import EVIL, NOON

from cloudseg.catalog import drift_rows, label_rows, model_rows, quarantine_rows, scene_rows, training_rows
from cloudseg.records import Label, Quarantined, SceneBrightness
from cloudseg.runtime import Runtime

ESCAPED = "&lt;script&gt;"


def add_label(runtime: Runtime, number: int, *, of: int, version: int) -> Label:
    blob = runtime.store.put("scenes/aa/scene.tif", b"scene")
    label = Label(
        label_id=f"lb-{number}",
        scene_id=f"sc-{of:020x}",
        version=version,
        source="analyst:ada",
        class_mapping={},
        cloud_fraction=0.5,
        labelled_fraction=1,
        source_uri=f"file:///tiles/label_{number}.tif",
        source_sha256=f"{number:064x}",
        created_at=NOON,
        **blob.model_dump(),
    )
    with runtime.catalog.begin() as db:
        added = scene_rows.add_label(db, label, state="proposed", actor="ingest", reason="")
    assert added is not None
    return added


def test_the_data_page_shows_scenes_labels_map_and_counts(client: TestClient, filled: Runtime) -> None:
    second = add_label(filled, 2, of=0, version=1)
    with filled.catalog.begin() as db:
        scene_rows.decide_places(db, {"mgrs:31UDQ": "train"})
        label_rows.add_event(db, second, "rejected", actor="bob", reason=EVIL)
    page = client.get("/data").text
    assert "synthetic_1" in page
    assert ESCAPED in page
    assert EVIL not in page
    assert '<rect class="split-train"' in page
    assert 'class="ground" d="M' in page, "the coast around it"
    assert "mgrs:31UDQ, train: 3 scenes, 2 with a label" in page
    assert "<td>synthetic</td><td>train</td>" in page
    assert "There is one snapshot only." in page
    assert "1–2 of 2 scenes" in page


def test_scenes_are_filtered_by_name_split_and_state(client: TestClient, filled: Runtime) -> None:
    add_label(filled, 2, of=2, version=1)

    def listed(query: str) -> set[str]:
        page = client.get(f"/data?{query}")
        assert page.status_code == 200, query
        return {name for name in ("synthetic_1", "synthetic_2") if f">{name}</td>" in page.text}

    assert listed("") == {"synthetic_1", "synthetic_2"}
    assert listed("text=SYNTHETIC_2") == {"synthetic_2"}
    assert listed("text=mgrs:31") == {"synthetic_1", "synthetic_2"}
    assert listed("text=%25") == set(), "no wildcard"
    assert listed("state=proposed") == {"synthetic_2"}
    assert listed("state=accepted&sensor=synthetic") == {"synthetic_1"}
    assert listed("text=thetic%2A1") == {"synthetic_1"}
    assert listed("since=2026-03-01&until=2026-03-01") == {"synthetic_1", "synthetic_2"}
    assert listed("since=2026-03-02") == set()
    assert listed("until=2026-02") == set()
    for query in ("since=soon", "since=2026-03-02&until=2026-03-01", "text=" + "%2A" * 20):
        assert client.get(f"/data?{query}").status_code == 400, query
    assert listed("split=undecided") == {"synthetic_1", "synthetic_2"}
    assert listed("split=held_out") == set()
    assert client.get("/data?state=nonsense").status_code == 422
    assert client.get("/data?page=2").status_code == 200


def test_a_label_has_its_whole_life(client: TestClient, filled: Runtime) -> None:
    label = add_label(filled, 2, of=2, version=1)
    with filled.catalog.begin() as db:
        label_rows.add_event(db, label, "accepted", actor="airflow:ada", reason="checked on the map")
        label_rows.add_event(db, label, "withdrawn", actor="bob", reason=EVIL)
    page = client.get("/data/labels/lb-2").text
    assert page.index("proposed") < page.index("checked on the map") < page.index(ESCAPED)
    assert EVIL not in page
    assert client.get("/data/labels/lb-none").status_code == 404


def test_what_changed_between_two_snapshots(client: TestClient, filled: Runtime) -> None:
    correction, other = add_label(filled, 2, of=1, version=2), add_label(filled, 3, of=2, version=1)
    with filled.catalog.begin() as db:
        frozen = training_rows.get_snapshot(db, "sn-1").model_copy(
            update={
                "snapshot_id": "sn-2",
                "created_at": NOON + timedelta(days=1),
                "counts": {"chips": 5, "train": {"chips": 5, "scenes": 2, "places": 1, "cloud_fraction": 0.4}},
            }
        )
        training_rows.add_snapshot(db, frozen, {correction.label_id: "train", other.label_id: "train"})
    form = client.get("/data").text
    assert '<option value="sn-1" selected>' in form
    page = client.get("/data/difference?before=sn-1&after=sn-2").text
    assert "<b>2</b><span>labels added</span>" in page
    assert "<b>1</b><span>labels removed</span>" in page
    assert "<b>1</b><span>scenes with other labels</span>" in page
    assert "<b>4</b><span>chips more or less</span>" in page
    assert "synthetic_1 v2" in page
    assert "Both hold the same labels." in client.get("/data/difference?before=sn-2&after=sn-2").text
    assert client.get("/data/difference?before=sn-1&after=sn-9").status_code == 404


def quarantined(number: int, what: str = "no CRS") -> Quarantined:
    return Quarantined(
        quarantine_id=f"qu-{number:03d}",
        name=f"bad_{number}.tif" if number else EVIL,
        source_uri=f"file:///in/{number}.tif",
        source_sha256="0" * 64,
        error="BadScene",
        what=what,
        found=f"value {number}",
        expected="another",
        next_step="Give it `one`.",
        created_at=NOON + timedelta(minutes=number),
    )


def test_quarantine_is_grouped_by_reason_and_leads_to_trying_again(client: TestClient, runtime: Runtime) -> None:
    assert "Nothing in quarantine." in client.get("/quarantine").text
    with runtime.catalog.begin() as db:
        for number in range(30):
            scene_rows.add_quarantined(db, quarantined(number))
        scene_rows.add_quarantined(db, quarantined(50, EVIL))
    page = client.get("/quarantine").text
    assert "31 files could not become" in page
    assert 'reason: no CRS">30</a>' in page
    assert page.count("Give it <code>one</code>.") == 2, "the next step of each reason"
    assert [name for name in ("bad_29", "bad_28", "bad_27", "bad_26") if f">{name}.tif</span>" in page] == [
        "bad_29",
        "bad_28",
        "bad_27",
    ]
    assert "2026-03-01 12:00 UTC" in page
    assert (ESCAPED in page, EVIL in page) == (True, False)
    files = client.get("/quarantine/qu-029/alike").text
    assert ("bad_29.tif" in files, "bad_5.tif" in files) == (True, False)
    assert "1–24 of 30 files" in files
    assert "bad_5.tif" in client.get("/quarantine/qu-029/alike?page=2").text
    entry = client.get("/quarantine/qu-005").text
    for text in ("No CRS", "value 5", "another", "Give it <code>one</code>.", "file:///in/5.tif", "All 30 files"):
        assert text in entry
    assert 'href="/decide?decision=release&amp;about=qu-005"' in entry
    assert "Try these 24 again" in files
    assert "cloudseg quarantine --release qu-005" in entry
    assert (ESCAPED in client.get("/quarantine/qu-000").text, EVIL in client.get("/quarantine/qu-000").text) == (
        True,
        False,
    )
    assert client.get("/quarantine/qu-none").status_code == 404


def test_releases_are_shown_with_who_and_why(client: TestClient, runtime: Runtime) -> None:
    with runtime.catalog.begin() as db:
        scene_rows.add_quarantined(db, quarantined(1))
        quarantine_rows.release(db, quarantined(1), actor="airflow:ada", reason="a better copy")
    page = client.get("/quarantine").text
    assert ("airflow:ada" in page, "a better copy" in page) == (True, True)
    gone = client.get("/quarantine/qu-001")
    assert gone.status_code == 404
    assert "released by airflow:ada" in gone.text


def test_the_drift_page_without_and_with_drift(client: TestClient, filled: Runtime) -> None:
    assert "unknown" not in client.get("/drift").text
    assert "is not compared: the champion was trained on" in client.get("/drift").text
    with filled.catalog.begin() as db:
        like, labels = scene_rows.list_scenes(db)[0], {}
        for number in range(100, 190):
            late = number >= 160
            scene = like.model_copy(
                update={
                    "scene_id": f"sc-{number:020x}",
                    "name": f"drift_{number}",
                    "sensor": "sentinel-2-l1c",
                    "source_sha256": f"{number:064x}",
                    "created_at": NOON + timedelta(weeks=3 * late),
                }
            )
            scene_rows.add_scene(db, scene)
            reflectance = 0.1 + number % 60 / 600 + 0.3 * late
            found = SceneBrightness(scene_id=scene.scene_id, reflectance=reflectance, created_at=NOON)
            drift_rows.add_brightness(db, found)
            if not late:
                label = scene_rows.get_label(db, "lb-1").model_copy(
                    update={"label_id": f"lb-{number}", "scene_id": scene.scene_id}
                )
                scene_rows.add_label(db, label)
                labels[label.label_id] = "train"
        frozen = training_rows.get_snapshot(db, "sn-1").model_copy(update={"snapshot_id": "sn-3"})
        training_rows.add_snapshot(db, frozen, labels)
        champion = model_rows.find_champion(db)
        assert champion is not None
        weights = model_rows.get_weights(db, champion.weights_id).model_copy(
            update={"weights_id": "w-drift", "snapshot_id": "sn-3", "run_id": None}
        )
        model_rows.add_weights(db, weights)
        follows = {"generation": champion.generation + 1, "weights_id": "w-drift"}
        model_rows.add_promotion(
            db, champion.model_copy(update={**follows, "previous_weights_id": champion.weights_id})
        )
    page = client.get("/drift").text
    assert "brightness of the scenes of sentinel-2-l1c in 2026-W12 is higher than in training" in page
    assert 'class="past"' in page
    assert '<rect class="band"' in page
    assert "past the limit in 2026-W12" in page
    assert '<span class="chip bad">past the limit</span>' in page
    assert "None: no place with ten masks" in page


def test_the_pages_of_an_empty_catalog(client: TestClient) -> None:
    assert "No labeled scene yet." in client.get("/data").text
    assert "there is no champion yet" in client.get("/drift").text
