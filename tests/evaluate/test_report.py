"""The page is self-contained, escapes all values, and has its charts and pictures."""

import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cloudseg.catalog import Catalog
from cloudseg.evaluate.charts import chart, ticks
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.metrics import Counts
from cloudseg.evaluate.panels import COLORS
from cloudseg.evaluate.pictures import choose
from cloudseg.evaluate.report import Picture, Subject, reliability, report_html
from cloudseg.evaluate.scene_result import CURVE_BINS, SceneResult
from cloudseg.evaluate.table import CountsTable, headline, threshold_curve
from cloudseg.records import Epoch, Run, Weights
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, build_world, default_tiles, make_tile, register_net

DAY = datetime(2018, 7, 1, tzinfo=UTC)
EVIL = '<script>alert("x")</script>'


def scene(n: int, counts: Counts, name: str = "scene") -> SceneResult:
    return SceneResult(
        scene_id=f"sc-{n}",
        name=name,
        place=name,
        sensor=name,
        source=name,
        tags={"biome": name},
        cloud_fraction=counts.cloud / counts.pixels,
        ground_reflectance=0.1,
        saturated_fraction=0,
        counts=counts,
        bright=Counts(tp=counts.tp, fn=counts.fn, tn=counts.tn),
    )


def subject(name: str = "plain", epochs: int = 3) -> Subject:
    scenes = [scene(n, Counts(tp=40 + n, fp=3, fn=5, tn=50), name) for n in range(6)]
    table = CountsTable(
        weights_id="w-1",
        snapshot_id="sn-1",
        split="held_out",
        threshold=0.4,
        bright_from_reflectance=0.2,
        scenes=scenes,
        curve=([10] * CURVE_BINS, [10] * CURVE_BINS),
    )
    weights = Weights(
        weights_id="w-1",
        version=3,
        run_id="run",
        snapshot_id="sn-1",
        architecture=name,
        key="k",
        sha256="0" * 64,
        size=12345,
        companions={},
        metadata={"bands": [name], "widths": [8, 16], "threshold": 0.4},
        created_at=DAY,
    )
    run = Run(
        run_id="run",
        snapshot_id="sn-1",
        recipe_name=name,
        recipe_hash="h" * 64,
        recipe={},
        parent_weights_id=None,
        seed=0,
        status="finished",
        device="cpu",
        device_reason=name,
        error=None,
        created_at=DAY,
        finished_at=DAY,
    )
    rows = [
        Epoch(
            run_id="run",
            epoch=n,
            step=10 * n,
            metrics={"train_loss": 1 / n, "validation_loss": float("nan"), "validation_iou": 0.5},
            created_at=DAY,
        )
        for n in range(1, epochs + 1)
    ]
    return Subject("ev-1", weights, run, rows, table, headline(scenes), [name])


class Page(HTMLParser):
    """Collects tags and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


def test_everything_from_outside_is_escaped() -> None:
    about = subject(EVIL)
    choice = choose(about.table.scenes, "seed")[0]
    html = report_html(about, [Picture(choice, b"png")])
    assert EVIL not in html
    assert html.count("&lt;script&gt;") >= 8
    assert "script" not in read(html).tags


def test_the_page_loads_nothing() -> None:
    about = subject()
    html = report_html(about, [Picture(choice, b"png") for choice in choose(about.table.scenes, "seed")])
    page = read(html)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|https?:", html)
    assert "link" not in page.tags


def test_training_curves_are_drawn_where_there_was_a_training() -> None:
    assert "IoU on validation places" in report_html(subject(), [])
    assert "IoU on validation places" not in report_html(subject(epochs=0), [])


def test_a_training_of_one_epoch_is_drawn_on_axes_that_mean_something() -> None:
    html = report_html(subject(epochs=1), [])
    axis = html[html.index("<b>IoU on validation places</b>") :]
    assert [text in axis for text in (">0.0<", ">1.0<", ">10<")] == [True] * 3
    assert "-0." not in axis[: axis.index("</svg>")].replace('="-', "")


def test_what_has_no_information_is_left_out() -> None:
    html = report_html(subject(), [])
    assert "without saturated" not in html
    assert "Common to all scenes, so not listed:" in html
    assert "interval" not in html, "six scenes of one place have no interval"
    about = subject()
    spread_out = [
        entry.model_copy(update={"place": f"p{n}", "sensor": f"s{n % 2}"}) for n, entry in enumerate(about.table.scenes)
    ]
    table = about.table.model_copy(update={"scenes": spread_out})
    html = report_html(Subject("ev-1", about.weights, None, [], table, headline(spread_out), []), [])
    assert "bootstrap over 6 places; it is approximate" in html
    assert html.count("<td>sensor</td>") == 2


@pytest.mark.parametrize("scenes", [[Counts(tn=9)], [Counts(tp=9)], [Counts(tn=8, fp=1), Counts(fn=4)]])
def test_odd_sets_of_scenes_give_a_page(scenes: list[Counts]) -> None:
    about = subject()
    odd = [scene(n, counts) for n, counts in enumerate(scenes)]
    table = about.table.model_copy(update={"scenes": odd, "curve": ([0] * CURVE_BINS, [0] * CURVE_BINS)})
    html = report_html(Subject("ev-1", about.weights, None, [], table, headline(odd), []), [])
    assert not re.search(r"\bnan\b", html, re.IGNORECASE)


def test_the_stored_page_of_a_real_evaluation(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, [*default_tiles(), make_tile(EVIL, "held_out", 0.4)])
    weights = register_net(store, catalog, 0.58)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    html = store.get(evaluation.report["html"]["key"]).decode()
    assert EVIL not in html
    pictures = [name for name in evaluation.report if name.partition("-")[0] in ("best", "worst", "random")]
    assert len(pictures) == 9
    assert read(html).tags.count("img") == 9
    for name in pictures:
        picture = Image.open(io.BytesIO(store.get(evaluation.report[name]["key"])))
        assert picture.height == 288
        assert picture.width == 4 * 288 + 3 * 6


def test_pictures_show_what_was_missed(store: LocalStore, catalog: Catalog) -> None:
    """A net that never predicts cloud: the left, cloudy half of the fourth panel has the color of missed cloud."""
    snapshot_id = build_world(store, catalog, [make_tile("A", "held_out", 0.5)])
    weights = register_net(store, catalog, 0.99)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    pixels = np.asarray(Image.open(io.BytesIO(store.get(evaluation.report["best-1"]["key"]))).convert("RGB"))
    label, mask, difference = (pixels[144, n * 294 + 60] for n in (1, 2, 3))
    assert tuple(label) == COLORS["cloud"]
    assert tuple(mask) == COLORS["clear"]
    assert tuple(difference) == COLORS["missed"]


def test_best_worst_and_random_never_repeat_a_scene() -> None:
    scenes = [scene(n, Counts(tp=50, fn=50 - 5 * n, tn=50 + 5 * n)) for n in range(10)]
    chosen = choose(scenes, "seed")
    assert [choice.why for choice in chosen] == ["best"] * 3 + ["worst"] * 3 + ["random"] * 3
    assert [choice.result.scene_id for choice in chosen[:6]] == ["sc-9", "sc-8", "sc-7", "sc-0", "sc-1", "sc-2"]
    assert len({choice.result.scene_id for choice in chosen}) == 9
    assert choose(scenes, "seed") == chosen
    assert len(choose(scenes[:2], "seed")) == 2


def test_saturated_scenes_do_not_fill_the_worst_ones() -> None:
    white = [scene(n, Counts(fp=100)).model_copy(update={"saturated_fraction": 1.0}) for n in range(4)]
    others = [scene(n, Counts(tp=50, fn=50 - n, tn=50 + n)) for n in range(10, 14)]
    chosen = [(choice.why, choice.result.scene_id) for choice in choose([*white, *others], "seed")]
    assert [scene_id for why, scene_id in chosen if why == "saturated"] == ["sc-0"]
    assert {scene_id for why, scene_id in chosen if why == "worst"} <= {entry.scene_id for entry in others}
    assert [choice.why for choice in choose(white, "seed")][:3].count("saturated") == 0, "nothing else is there to show"


def test_ticks_are_round() -> None:
    assert [text for _, text in ticks(0, 1)] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [text for _, text in ticks(0, 1234)] == ["0", "500", "1000"]
    assert [text for _, text in ticks(0.0001, 0.0003)] == ["0.00010", "0.00015", "0.00020", "0.00025", "0.00030"]


def test_a_chart_leaves_out_what_is_not_finite() -> None:
    drawn = chart("t", "x", "y", [("a", 1, [(0, 1), (1, float("nan")), (2, 3)]), ("b", 2, [(0, float("inf"))])])
    assert drawn is not None
    assert [line.name for line in drawn.lines] == ["a"]
    assert len(drawn.lines[0].points.split()) == 2
    assert chart("t", "x", "y", [("a", 1, [])]) is None


def test_reliability_by_hand() -> None:
    counts = Counts(bin_pixels=(4, *[0] * 14), bin_cloud=(1, *[0] * 14), bin_probability=(0.2, *[0.0] * 14))
    assert reliability(counts) == [{"probability": 0.05, "cloud": 0.25, "pixels": 4}]


def test_the_threshold_curve_starts_at_all_cloud_and_ends_at_none() -> None:
    clear, cloud = [0] * CURVE_BINS, [0] * CURVE_BINS
    clear[10], cloud[90] = 60, 40
    points = threshold_curve((clear, cloud))
    assert (points[0]["iou"], points[0]["false_cloud"], points[0]["recall"]) == (0.4, 1, 1)
    assert (points[50]["iou"], points[50]["false_cloud"]) == (1, 0)
    assert (points[100]["iou"], points[100]["recall"]) == (0, 0)
