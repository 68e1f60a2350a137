"""Mutation tests: break the code on purpose, one line at a time, and check that a test fails (`make mutants`).

Each mutant is one change of the code that breaks a promise of the service, with the tests that must fail on it. It is
applied in a temporary copy of the checkout, so the working tree is never touched. A mutant that survives means that no
test covers the promise.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).resolve().parents[1]
_PASSED: Final = 0
_FAILED: Final = 1
"""Exit codes of pytest; others mean that it could not run the tests (docs.pytest.org, "Exit codes")."""
_TAIL_LINES: Final = 30


@dataclass(frozen=True)
class Mutant:
    """One change of the code and the tests that must fail on it."""

    name: str
    file: str
    old: str
    """Exact text that occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Arguments of pytest: files or single tests."""


_LEAKAGE: Final = "tests/train/test_leakage.py"
_BOOTSTRAP: Final = "tests/evaluate/test_bootstrap.py"
_COMPARISON: Final = "tests/evaluate/test_comparison.py"
_CHAMPION: Final = "tests/registry/test_champion.py"
_DRAW: Final = "tests/predict/test_draw.py"
_SOURCE: Final = "cloudseg/ingest/stac_source"
_COMPOSITE: Final = "tests/gis/test_composite.py"
_RISK: Final = "tests/evaluate/test_risk.py"
_RADIOMETRY: Final = "tests/evaluate/test_radiometry.py"
_PROMISED: Final = "tests/predict/test_promised_masks.py"
_WINDOW_PIXELS: Final = "tests/predict/test_window_pixels.py"
_LEASES: Final = "tests/catalog/test_lease_rows.py"
_SNAPSHOT: Final = "tests/dataset/test_snapshot.py"
_BUDGET: Final = "tests/train/test_budget.py"

MUTANTS: Final = (
    # No leakage between the splits.
    Mutant(
        "trains-on-held-out-chips",
        "cloudseg/train/data.py",
        'choose_chips(chip_set.of("train"), recipe)',
        'choose_chips(chip_set.of("train") + chip_set.of("held_out"), recipe)',
        (f"{_LEAKAGE}::test_an_epoch_draws_every_training_chip_and_no_other",),
    ),
    Mutant(
        "trains-on-validation-chips",
        "cloudseg/train/data.py",
        'choose_chips(chip_set.of("train"), recipe)',
        'choose_chips(chip_set.of("train") + chip_set.of("validation"), recipe)',
        (f"{_LEAKAGE}::test_an_epoch_draws_every_training_chip_and_no_other",),
    ),
    Mutant(
        "validates-on-held-out-chips",
        "cloudseg/train/data.py",
        'sorted(chip_set.of("validation")',
        'sorted(chip_set.of("held_out")',
        (f"{_LEAKAGE}::test_other_held_out_chips_give_the_same_weights",),
    ),
    Mutant(
        "threshold-of-training-chips",
        "cloudseg/train/run.py",
        "pack_result(trainer, validator, ",
        "pack_result(trainer, Validator(TrainingData(data.chip_set, [], data.train), 2, dist), ",
        (f"{_LEAKAGE}::test_the_threshold_is_the_one_that_validation_chips_want",),
    ),
    Mutant(
        "threshold-of-held-out-chips",
        "cloudseg/train/run.py",
        "pack_result(trainer, validator, ",
        'pack_result(trainer, Validator(TrainingData(data.chip_set, [], data.chip_set.of("held_out")), 2, dist), ',
        (f"{_LEAKAGE}::test_the_threshold_is_the_one_that_validation_chips_want",),
    ),
    Mutant(
        "splits-by-scene",
        "cloudseg/dataset/plan.py",
        "_source(scene, labels, splits[scene.place], recipe)",
        "_source(scene, labels, split_of(scene.scene_id), recipe)",
        ("tests/dataset/test_snapshot.py::test_held_out_places_stay_held_out",),
    ),
    Mutant(
        "proposed-split-over-the-stored-one",
        "cloudseg/dataset/plan.py",
        "return scene_rows.decide_places(db, proposed)",
        "return scene_rows.decide_places(db, proposed) | proposed",
        ("tests/dataset/test_snapshot.py::test_held_out_places_stay_held_out",),
    ),
    Mutant(
        "dry-run-proposes-again",
        "cloudseg/dataset/plan.py",
        "return proposed | decided",
        "return decided | proposed",
        ("tests/dataset/test_snapshot.py::test_held_out_places_stay_held_out",),
    ),
    Mutant(
        "compares-on-validation-chips",
        "cloudseg/evaluate/gate.py",
        'Split = "held_out"',
        'Split = "validation"',
        ("tests/evaluate/test_gate.py::test_first_model_then_better_then_worse",),
    ),
    # The gate: one-sided bounds of a bootstrap over places.
    Mutant(
        "lower-bound-two-sided",
        "cloudseg/evaluate/bootstrap.py",
        "np.quantile(all_draws, 1 - confidence)",
        "np.quantile(all_draws, (1 - confidence) / 2)",
        (f"{_BOOTSTRAP}::test_bounds_are_those_of_the_normal_approximation",),
    ),
    Mutant(
        "upper-bound-is-the-maximum",
        "cloudseg/evaluate/bootstrap.py",
        "upper=float(np.quantile(all_draws, confidence))",
        "upper=float(all_draws.max())",
        (f"{_BOOTSTRAP}::test_bounds_are_those_of_the_normal_approximation",),
    ),
    Mutant(
        "scenes-drawn-instead-of-places",
        "cloudseg/evaluate/bootstrap.py",
        "    places = sorted({row.place for row in rows})",
        "    rows = [Row(str(number), row.challenger, row.other) for number, row in enumerate(rows)]\n"
        "    places = sorted({row.place for row in rows})",
        (f"{_BOOTSTRAP}::test_scenes_of_one_place_are_drawn_together",),
    ),
    Mutant(
        "promotes-on-the-observed-difference",
        "cloudseg/evaluate/comparison.py",
        "difference.lower > policy.margin",
        "difference.observed > policy.margin",
        (f"{_COMPARISON}::test_better_but_not_significantly_holds",),
    ),
    Mutant(
        "rejects-on-the-observed-difference",
        "cloudseg/evaluate/comparison.py",
        "difference.upper < policy.reject_below",
        "difference.observed < policy.reject_below",
        (f"{_COMPARISON}::test_worse_but_not_significantly_holds",),
    ),
    Mutant(
        "trivial-masks-by-the-upper-bound",
        "cloudseg/evaluate/comparison.py",
        "if difference.observed < 0:",
        "if difference.upper < 0:",
        (f"{_COMPARISON}::test_a_mask_that_may_be_worse_than_a_trivial_one_is_rejected",),
    ),
    Mutant(
        "few-places-decide",
        "cloudseg/evaluate/comparison.py",
        "    if places < needed:\n        result.holds",
        "    if False:\n        result.holds",
        (f"{_COMPARISON}::test_too_few_places_hold",),
    ),
    # One champion, and the promotion that the verdict was about.
    Mutant(
        "expected-champion-not-compared",
        "cloudseg/registry/champion.py",
        "    if found != expected:",
        "    if False:",
        (f"{_CHAMPION}::test_another_champion_than_expected_refuses",),
    ),
    Mutant(
        "verdict-against-another-champion",
        "cloudseg/registry/champion.py",
        "(verdict.challenger_id, verdict.champion_id) != (weights_id, expected)",
        "verdict.challenger_id != weights_id",
        (f"{_CHAMPION}::test_a_verdict_about_others_refuses",),
    ),
    Mutant(
        "pointer-without-compare-and-swap",
        "cloudseg/registry/champion.py",
        "store.replace(keys.CHAMPION_POINTER, wanted, expected=found)",
        "store.replace(keys.CHAMPION_POINTER, wanted)",
        (f"{_CHAMPION}::test_a_late_pointer_write_does_not_undo_a_newer_one",),
    ),
    Mutant(
        "promotion-without-its-lock",
        "cloudseg/registry/champion.py",
        'advisory_lock(db, "the champion")\n        current = model_rows.find_champion(db)\n'
        "        if current is not None and _is_same(",
        "current = model_rows.find_champion(db)\n        if current is not None and _is_same(",
        ("tests/catalog/test_races.py::test_two_concurrent_attempts_are_one",),
    ),
    Mutant(
        "rollback-without-its-lock",
        "cloudseg/registry/champion.py",
        'advisory_lock(db, "the champion")\n        current = model_rows.find_champion(db)\n'
        "        if current is not None and (current.action",
        "current = model_rows.find_champion(db)\n        if current is not None and (current.action",
        ("tests/catalog/test_races.py::test_two_concurrent_attempts_are_one",),
    ),
    Mutant(
        "unattended-run-promotes-what-was-declined",
        "cloudseg/stages/promote.py",
        "    if find_blocking_decision(runtime.catalog, weights.weights_id) is not None:\n",
        "    if False:\n",
        ("tests/stages/test_decisions.py",),
    ),
    # Bytes first, row last; nothing is deleted meanwhile.
    Mutant(
        "publishes-the-row-first",
        "cloudseg/publish.py",
        "    stored = put_all(store, objects)\n",
        "    with catalog.begin() as db:\n"
        "        write_row(db, {name: item.stored for name, item in objects.items()})\n"
        "    stored = put_all(store, objects)\n",
        ("tests/test_publish.py::test_a_store_that_fails_writes_no_row",),
    ),
    Mutant(
        "publishes-without-its-lock",
        "cloudseg/publish.py",
        "        lock_for_publish(db)\n",
        "",
        ("tests/catalog/test_gc_lock.py::test_gc_waits_for_a_publication",),
    ),
    Mutant(
        "publishes-without-a-second-check",
        "cloudseg/publish.py",
        "if not store.exists(item.stored.key)",
        "if False",
        ("tests/stages/test_maintain.py::test_an_orphan_collected_while_it_is_published_again_is_put_back",),
    ),
    # Training: the loss, the average, and a resumed run that ends with the undisturbed weights.
    Mutant(
        "unlabeled-pixels-count-as-clear",
        "cloudseg/train/trainer.py",
        "known = label != MASK_NO_DATA",
        "known = label >= 0",
        ("tests/train/test_batch.py::test_invalid_pixels_never_change_the_loss",),
    ),
    Mutant(
        "average-without-warm-up",
        "cloudseg/train/trainer.py",
        "min(self._decay,",
        "max(self._decay,",
        ("tests/train/test_ema.py::test_the_decay_grows_up_to_its_value",),
    ),
    Mutant(
        "resumes-without-the-optimizer",
        "cloudseg/train/trainer.py",
        'load_optimizer(self.net, self.optimizer, select_prefix("optimizer", state.tensors))',
        "pass",
        ("tests/train/test_run.py::test_killed_runs_end_with_the_weights_of_an_uninterrupted_run",),
    ),
    # Prediction: a window yields in its core what the whole scene would yield; the mask follows from the probability.
    Mutant(
        "margin-rounded-down",
        "cloudseg/model/windows.py",
        "math.ceil((radius + halo) / multiple)",
        "math.floor((radius + halo) / multiple)",
        ("tests/model/test_windows.py::test_margin_is_whole_cells",),
    ),
    Mutant(
        "last-window-off-the-pooling-grid",
        "cloudseg/model/windows.py",
        "math.ceil((length - size) / multiple) * multiple)",
        "length - size)",
        ("tests/model/test_windows.py::test_cores_cover_the_scene_once_and_padded_windows_look_far_enough",),
    ),
    Mutant(
        "no-halo-when-upsampling",
        "cloudseg/model/windows.py",
        "halo=1 if factor > 1 else 0",
        "halo=0",
        (f"{_DRAW}::test_windowed_equals_whole",),
    ),
    Mutant(
        "upsampling-uses-unobserved-pixels",
        "cloudseg/raster/resample.py",
        "    share = observed.astype(np.float32)",
        "    share = np.ones(observed.shape, np.float32)",
        ("tests/raster/test_resample.py::test_both_ways_are_what_a_plain_loop_gives",),
    ),
    Mutant(
        "evaluation-without-the-surroundings-of-a-chip",
        "cloudseg/evaluate/scene.py",
        "            fine = read_mosaic(self.chips, of_scene, ",
        "            fine = read_mosaic(self.chips, of_scene[:1], ",
        ("tests/evaluate/test_what_is_published.py::test_every_scene_pixel_has_its_published_probability",),
    ),
    Mutant(
        "threshold-rounded-down-to-a-step",
        "cloudseg/raster/probability.py",
        "math.ceil(threshold * STEPS - 1e-9)",
        "math.floor(threshold * STEPS + 1e-9)",
        ("tests/raster/test_probability.py::test_mask_can_be_made_again_from_the_published_probability",),
    ),
    Mutant(
        "prediction-ignores-a-request-to-stop",
        "cloudseg/stages/predict.py",
        "raise_if_interrupted(request.signal_name",
        "raise_if_interrupted(None",
        ("tests/predict/test_predict_stage.py::test_a_prediction_that_is_asked_to_stop_keeps_what_it_has",),
    ),
    # Masks for others: the service hands out what is published, as it is.
    Mutant(
        "tiles-mix-steps-of-probability",
        "cloudseg/serve/render.py",
        'reproject_method="bilinear" if image else "nearest"',
        'reproject_method="bilinear"',
        ("tests/serve/test_render.py",),
    ),
    Mutant(
        "serves-files-of-scenes-that-are-not-published",
        "cloudseg/serve/files.py",
        "where(s.key == key, s.publishable)",
        "where(s.key == key)",
        ("tests/serve/test_files.py::test_what_is_not_published_has_no_file",),
    ),
    Mutant(
        "an-address-of-a-replaced-document-is-cached-for-good",
        "cloudseg/serve/object_response.py",
        'keys.sha256_of(f"{key} {size} {written_at.timestamp()}".encode())',
        "keys.sha256_of(key.encode())",
        ("tests/serve/test_serve_limits.py::test_a_document_that_was_replaced_is_sent_anew",),
    ),
    Mutant(
        "guesses-of-keys-are-not-limited",
        "cloudseg/serve/guard.py",
        "if wait := self._rate.wait_of(client_of(scope)):",
        "if not self._keys and (wait := self._rate.wait_of(client_of(scope))):",
        ("tests/serve/test_serve_limits.py::test_a_guess_of_a_key_counts_as_a_request",),
    ),
    # The static STAC catalog: no reader follows a link to nothing, no writer loses what another one wrote.
    Mutant(
        "publishes-over-another-publisher",
        "cloudseg/stac/static.py",
        "store.replace(key, wanted, expected=found)",
        "store.replace(key, wanted)",
        ("tests/stac/test_static.py::test_two_publishers_at_once_lose_nothing",),
    ),
    Mutant(
        "removes-a-month-that-its-collection-points-to",
        "cloudseg/stac/static.py",
        "if not members and found is not None and not self.dry_run:",
        "if False:",
        ("tests/stac/test_static.py::test_killed_while_it_removes_a_month_nothing_points_to_what_is_gone",),
    ),
    # STAC sources: nothing but public hosts is contacted, politely, within bounds.
    Mutant(
        "connects-to-private-addresses",
        f"{_SOURCE}/hosts.py",
        "if not private and not is_public(str(address[0])):",
        "if False:",
        ("tests/ingest/test_stac_hosts.py::test_a_name_with_a_private_address_is_not_connected_to",),
    ),
    Mutant(
        "a-host-is-asked-before-its-pause-is-over",
        f"{_SOURCE}/http_client.py",
        "            self._wait(host)\n",
        "",
        ("tests/ingest/test_stac_http.py::test_a_pause_is_kept_by_every_thread",),
    ),
    Mutant(
        "more-requests-at-a-time",
        f"{_SOURCE}/http_client.py",
        "threading.BoundedSemaphore(max(1, options.connections))",
        "threading.BoundedSemaphore(99)",
        ("tests/ingest/test_stac_http.py::test_at_most_so_many_requests_at_a_time",),
    ),
    Mutant(
        "compares-footprints-of-any-number-of-vertices",
        f"{_SOURCE}/search.py",
        "if shapely.get_num_coordinates(found) <= _MAX_FOOTPRINT and not",
        "if not",
        ("tests/ingest/test_stac_search.py::test_a_footprint_of_many_vertices_costs_no_time",),
    ),
    Mutant(
        "two-processes-write-one-copy",
        f"{_SOURCE}/fetch_item.py",
        "            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "            pass",
        ("tests/ingest/test_stac_folder.py",),
    ),
    # Clean, measured and composed masks.
    Mutant(
        "no-data-counts-as-valid-in-an-area",
        "cloudseg/gis/area_stats.py",
        "covered * (1.0 - no_data)",
        "covered",
        ("tests/gis/test_stats.py::test_polygons_along_pixels_are_counted_exactly",),
    ),
    Mutant(
        "pixels-of-another-zone-are-up-to-an-eighth-off",
        "cloudseg/gis/observations.py",
        "tolerance=_TOLERANCE",
        "tolerance=0.125",
        (f"{_COMPOSITE}::test_pixels_of_another_zone_lie_where_a_projection_of_each_center_puts_them",),
    ),
    Mutant(
        "a-median-of-pixels-without-data",
        "cloudseg/gis/composite.py",
        "np.copyto(stack[place], found, where=clear)",
        "np.copyto(stack[place], found)",
        (f"{_COMPOSITE}::test_the_median_of_clear_pixels",),
    ),
    Mutant(
        "no-data-is-clear-in-both-masks",
        "cloudseg/changes/measure.py",
        "np.full(before.shape, NONE, np.uint8)",
        "np.full(before.shape, BOTH_CLEAR, np.uint8)",
        ("tests/changes/test_changes.py::test_every_pixel_has_its_class",),
    ),
    # The backfill and the switch of readers.
    Mutant(
        "a-night-over-its-budget",
        "cloudseg/stages/backfill.py",
        "        if chosen and pixels > megapixels * _MEGAPIXEL:\n            break\n",
        "",
        ("tests/predict/test_backfill.py::test_a_night_stays_in_its_budget_and_goes_on_the_next",),
    ),
    Mutant(
        "a-scene-that-fails-is-tried-first-again",
        "cloudseg/catalog/backfill_rows.py",
        "case((planned, 1), else_=0)",
        "case((planned, 0), else_=0)",
        ("tests/catalog/test_backfill_rows.py::test_what_an_earlier_plan_named_comes_last",),
    ),
    Mutant(
        "readers-lose-scenes-unasked",
        "cloudseg/registry/readers.py",
        "        if not incomplete:\n            _check_complete(db, weights_id)\n",
        "",
        ("tests/catalog/test_readers.py::test_readers_never_lose_scenes_unasked",),
    ),
    Mutant(
        "a-return-of-readers-is-undone-by-the-backfill",
        "cloudseg/registry/readers.py",
        'mode: ReaderMode = "newest" if weights_id is None else "hold"',
        'mode: ReaderMode = "newest" if weights_id is None else "complete"',
        ("tests/predict/test_backfill.py::test_from_the_promotion_to_the_switch",),
    ),
    # What goes with a mask: thresholds with a bound, and whether its scene is like the training scenes.
    Mutant(
        "a-bound-without-the-place-to-come",
        "cloudseg/evaluate/risk.py",
        "(risks.sum(axis=0) + 1) / (len(risks) + 1)",
        "risks.sum(axis=0) / max(1, len(risks))",
        (f"{_RISK}::test_the_promise_holds_on_average_over_draws_of_places",),
    ),
    Mutant(
        "a-careful-threshold-above-the-published-one",
        "cloudseg/evaluate/risk.py",
        "min(careful, own)",
        "max(careful, own)",
        (f"{_RISK}::test_careful_and_generous_lie_on_both_sides_of_balanced",),
    ),
    Mutant(
        "places-that-chose-the-weights-promise",
        "cloudseg/evaluate/evaluation.py",
        'if split == "held_out" and not',
        "if split and not",
        ("tests/evaluate/test_promise_of_evaluation.py::test_other_splits_promise_nothing",),
    ),
    Mutant(
        "a-later-evaluation-changes-what-was-promised",
        "cloudseg/catalog/promise_rows.py",
        "order_by(e.created_at, e.evaluation_id)",
        "order_by(e.created_at.desc(), e.evaluation_id)",
        (f"{_PROMISED}::test_thresholds_travel_with_a_mask_and_can_be_asked_for_by_name",),
    ),
    Mutant(
        "one-careful-threshold-for-all-weights",
        "cloudseg/stages/drain.py",
        "named_threshold(runtime, threshold, weights.weights_id)",
        "named_threshold(runtime, threshold, weights_id)",
        ("tests/predict/test_drain.py::test_a_threshold_by_name_is_that_of_each_weights",),
    ),
    Mutant(
        "too-bright-is-inside",
        "cloudseg/raster/brightness.py",
        "if not low <= value <= high",
        "if not low <= value",
        (f"{_PROMISED}::test_a_scene_that_is_too_bright_says_so_everywhere",),
    ),
    Mutant(
        "weights-without-a-range-say-inside",
        "cloudseg/raster/brightness.py",
        'flag="unknown", note="the weights',
        'flag="inside", note="the weights',
        (f"{_PROMISED}::test_old_weights_say_unknown_and_promise_nothing",),
    ),
    # Workers that draw scenes.
    Mutant(
        "a-lease-never-ends",
        "cloudseg/catalog/lease_rows.py",
        ".where(*_of(wanted), lease.c.until <= DatabaseTime())",
        ".where(*_of(wanted), lease.c.worker.is_(None))",
        (f"{_LEASES}::test_a_lease_holds_until_its_time_is_over_by_the_databases_clock",),
    ),
    Mutant(
        "a-scene-is-drawn-twice",
        "cloudseg/catalog/lease_rows.py",
        ".where(*_of(wanted), lease.c.until <= DatabaseTime())",
        ".where(*_of(wanted))",
        (f"{_LEASES}::test_what_is_added_is_drawn_once_and_released_with_its_mask",),
    ),
    Mutant(
        "two-transactions-draw-the-same-row",
        "cloudseg/catalog/lease_rows.py",
        "        .with_for_update(skip_locked=True, of=lease)\n",
        "",
        (f"{_LEASES}::test_no_worker_waits_for_another_that_draws",),
    ),
    # Radiometry: sources that are only held out, and slices of the gate.
    Mutant(
        "trains-on-a-source-that-is-only-held-out",
        "cloudseg/dataset/plan.py",
        'if splits[scene.place] == "held_out" or not any(_is_held_out(label, recipe) for label in labels)',
        "if splits[scene.place]",
        (f"{_SNAPSHOT}::test_some_label_sources_are_only_held_out",),
    ),
    Mutant(
        "a-place-of-such-a-source-is-split-as-any",
        "cloudseg/dataset/plan.py",
        '"held_out" if place in only_held_out else split_of(place)',
        "split_of(place)",
        (f"{_SNAPSHOT}::test_some_label_sources_are_only_held_out",),
    ),
    Mutant(
        "the-gate-sees-no-radiometry",
        "cloudseg/evaluate/slices.py",
        "slice_groups(scenes) | radiometry_groups(scenes)",
        "slice_groups(scenes)",
        (f"{_RADIOMETRY}::test_a_challenger_that_fails_in_one_variant_is_held",),
    ),
    Mutant(
        "radiometry-has-the-limit-of-other-slices",
        "cloudseg/evaluate/comparison.py",
        "policy.radiometry_limit if is_radiometry(kind) else policy.slice_limit",
        "policy.slice_limit",
        (f"{_RADIOMETRY}::test_radiometry_has_its_own_limit",),
    ),
    # A scene is read once, and the minutes of a training are planned again.
    Mutant(
        "windows-share-rows-that-move",
        "cloudseg/predict/window_pixels.py",
        "return dn.copy(), observed.copy()",
        "return dn, observed",
        (f"{_WINDOW_PIXELS}::test_windows_are_those_of_single_reads",),
    ),
    Mutant(
        "the-last-row-of-fewer-pixels-is-missing",
        "cloudseg/predict/window_pixels.py",
        "if self._next == self._height and self._rest.shape[1]:",
        "if self._next > self._height:",
        (f"{_WINDOW_PIXELS}::test_windows_are_those_of_single_reads",),
    ),
    Mutant(
        "minutes-are-planned-once",
        "cloudseg/train/loop.py",
        "        self._plan_again(epoch, Pace(trained_s / steps, chip_s), steps)\n",
        "",
        (f"{_BUDGET}::test_the_minutes_are_used_and_not_exceeded",),
    ),
    Mutant(
        "a-repeated-epoch-is-followed-by-another-plan",
        "cloudseg/train/loop.py",
        "total = self._recorded_total(epoch)",
        "total = None",
        (f"{_BUDGET}::test_an_epoch_that_is_repeated_is_followed_by_the_plan_that_its_row_records",),
    ),
    Mutant(
        "a-cache-of-no-block",
        "cloudseg/__init__.py",
        'os.environ.setdefault("GDAL_CACHEMAX", "64")',
        'os.environ["GDAL_CACHEMAX"] = "0"',
        ("tests/raster/test_read.py::test_blocks_are_decoded_once",),
    ),
    Mutant(
        "a-cache-of-exactly-what-is-needed",
        "cloudseg/ingest/block_cache.py",
        "_SLACK: Final = 1.25",
        "_SLACK: Final = 1.0",
        ("tests/ingest/test_block_cache.py::test_the_blocks_of_a_row_stay_for_the_windows_below",),
    ),
)


class MutantError(Exception):
    """A mutant that cannot be applied, or tests that cannot decide it."""


def apply_mutant(root: Path, mutant: Mutant) -> str:
    """Write the mutant into a copy of the checkout and return what the file held before."""
    path = root / mutant.file
    before = path.read_text(encoding="utf-8")
    if (count := before.count(mutant.old)) != 1:
        raise MutantError(f"{mutant.name}: the old text occurs {count} times in {mutant.file}: {mutant.old!r}")
    path.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    return before


def copy_checkout(target: Path) -> None:
    """Copy every file that git tracks or would track, as it is in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (REPO / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, target / name)


def run_tests(root: Path, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy of the checkout, on the code of the copy; stop at the first failure."""
    # No bytecode: a mutant of equal size written within a second of the original would run as the original.
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def check_unmutated(root: Path, mutants: Sequence[Mutant]) -> None:
    """Run all tests of the mutants on the unchanged code: they must pass."""
    done = run_tests(root, sorted({test for mutant in mutants for test in mutant.tests}))
    if done.returncode != _PASSED:
        raise MutantError(f"the tests do not pass on the unchanged code:\n{_tail(done)}")
    print(f"unchanged code: {_summary(done)}", flush=True)


def is_killed(root: Path, mutant: Mutant) -> bool:
    """Apply a mutant, run its tests, restore the file, and return whether a test failed."""
    before = apply_mutant(root, mutant)
    try:
        began = time.monotonic()
        done = run_tests(root, mutant.tests)
    finally:
        (root / mutant.file).write_text(before, encoding="utf-8")
    if done.returncode not in (_PASSED, _FAILED):
        raise MutantError(f"{mutant.name}: pytest ended with {done.returncode}, not with a failed test:\n{_tail(done)}")
    killed = done.returncode == _FAILED
    verdict, test = ("killed", _failed_test(done)) if killed else ("SURVIVED", " ".join(mutant.tests))
    print(f"{verdict:8}  {mutant.name:40}  {time.monotonic() - began:4.0f} s  {test}", flush=True)
    return killed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants; the exit status is 0 only where all are killed."""
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="only this mutant; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    options = parser.parse_args(arguments)
    try:
        mutants = _choose(options.only)
        if options.list:
            for mutant in mutants:
                print(f"{mutant.name:40}  {mutant.file}")
            return 0
        return _run(mutants)
    except MutantError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


def _run(mutants: Sequence[Mutant]) -> int:
    with tempfile.TemporaryDirectory(prefix="cloudseg-mutants-") as folder:
        root = Path(folder)
        copy_checkout(root)
        for mutant in mutants:  # a missing text is reported before minutes of tests
            before = apply_mutant(root, mutant)
            (root / mutant.file).write_text(before, encoding="utf-8")
        check_unmutated(root, mutants)
        survivors = [mutant.name for mutant in mutants if not is_killed(root, mutant)]
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants killed")
    if survivors:
        print(f"survived: {', '.join(survivors)}")
    return 1 if survivors else 0


def _choose(names: Sequence[str] | None) -> Sequence[Mutant]:
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in names or () if name not in known]:
        raise MutantError(f"no such mutant: {', '.join(unknown)}; --list prints them")
    return [known[name] for name in names] if names else MUTANTS


def _failed_test(done: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"^FAILED (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if found is None:
        raise MutantError(f"pytest ended with 1, but no test failed:\n{_tail(done)}")
    return found.group(1)


def _summary(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip().rpartition("\n")[2]


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])


if __name__ == "__main__":
    sys.exit(main())
