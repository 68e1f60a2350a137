"""Shipped recipes load, the hash depends on values only, and invalid values are reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloudseg.errors import RecipeError
from cloudseg.recipe import Recipe, load_recipe, recipe_from, recipe_names

SMALL: dict[str, Any] = {"name": "mine", "description": "for a test", "budget": {"steps": 10}}
TOML = 'name = "mine"\ndescription = "for a test"\n[budget]\nsteps = 10\n'


def test_the_recipes_that_the_service_needs_exist():
    assert {"baseline", "baseline_4200", "nightly", "smoke"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.recipe_hash) == 64
    assert recipe_from(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe, (
        "the recipe can be read from the row of a run"
    )


def test_the_hash_ignores_order_and_file(tmp_path: Path):
    reordered = dict(reversed(SMALL.items()))
    (tmp_path / "mine.toml").write_text("# a comment\n" + TOML)
    hashes = {
        recipe_from(SMALL).recipe_hash,
        recipe_from(reordered).recipe_hash,
        load_recipe(str(tmp_path / "mine.toml")).recipe_hash,
    }
    assert len(hashes) == 1


def test_explicit_defaults_do_not_change_the_hash():
    explicit = {**SMALL, "seed": 0, "optimizer": {"lr": 0.001}, "model": {"bands": ["red", "green", "blue"]}}
    assert recipe_from(explicit).recipe_hash == recipe_from(SMALL).recipe_hash


def test_the_hash_depends_on_every_value():
    assert recipe_from({**SMALL, "seed": 1}).recipe_hash != recipe_from(SMALL).recipe_hash
    assert recipe_from({**SMALL, "augment": {"flip": True}}).recipe_hash != recipe_from(SMALL).recipe_hash


def test_a_value_that_a_release_added_changes_no_hash_at_its_default():
    """The hash is in rows and decides whether a training is due: that of a recipe of November 2026 still holds."""
    augment = {"flip": True, "gain": 0.3, "band_gain": 0.1, "saturate": 0.5, "scale": 0.4}
    recipe = recipe_from({**SMALL, "augment": augment})
    assert recipe.recipe_hash == "f60f9071969094ae13cf5b33c019c0ed4b36decbca522cd2efd8aad831c9bb0a"
    for added in ({"offset": 0.1}, {"rectangle": 0.5}, {"interpolation": "random"}, {"scale": [1.0, 1.1]}):
        assert recipe_from({**SMALL, "augment": augment | added}).recipe_hash != recipe.recipe_hash
    four = {**SMALL, "model": {"bands": ["red", "green", "blue", "nir"]}}
    dropping = recipe_from({**four, "augment": {"drop_bands": 0.5}})
    assert dropping.recipe_hash != recipe_from(four).recipe_hash
    assert (dropping.optional_bands, recipe_from(four).optional_bands) == (("nir",), ())


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("name", "Not A Name", "name"),
        ("seed", -1, "seed"),
        ("seed", 2**63, "seed"),
        ("sed", 1, "sed"),
        ("ema_decay", 1.0, "ema_decay"),
        ("precision", "fp8", "precision"),
        ("model", {"architecture": "ResNet"}, "model.architecture"),
        ("model", {"widths": []}, "model.widths"),
        ("model", {"widths": [8, 0]}, "model.widths.1"),
        ("model", {"widths": [8] * 9}, "model.widths"),
        ("model", {"bands": []}, "model.bands"),
        ("model", {"bands": ["red", "B04"]}, "model.bands.*B04: unknown band"),
        ("model", {"bands": ["red", "red"]}, "model.bands.*twice"),
        ("model", {"color": 1}, "model.color"),
        ("input", {"std": [0.0]}, "input.std.0"),
        ("input", {"mean": [0.1, 0.2]}, "input.mean has 2 values for 3 bands"),
        ("input", {"clip": float("nan")}, "input.clip"),
        ("data", {"chip_size": 8}, "data.chip_size"),
        ("data", {"chip_size": 130}, "data.chip_size 130 is not a multiple of 4"),
        ("data", {"chip_size": 128, "crop_size": 256}, "data.crop_size 256 is larger"),
        ("optimizer", {"lr": 0}, "optimizer.lr"),
        ("optimizer", {"lr": "fast"}, "optimizer.lr"),
        ("augment", {"scale": -0.1}, r"augment\.scale"),
        ("augment", {"scale": [1.1, 0.5]}, "the smallest zoom 1.1 is above the largest 0.5"),
        ("augment", {"scale": [0.5, 1.1]}, r"augment\.scale 0\.5 needs windows of 768 pixels.* lower data\.crop_size"),
        ("augment", {"offset": 2}, r"augment\.offset"),
        ("augment", {"rectangle": 1.5}, r"augment\.rectangle"),
        ("augment", {"drop_bands": 0.5}, r"augment\.drop_bands needs a band beyond"),
        ("augment", {"interpolation": "cubic"}, r"augment\.interpolation"),
        ("budget", {}, "budget: .*never ends"),
        ("budget", {"steps": 1.5}, "budget.steps"),
        ("budget", {"epochs": 0}, "budget.epochs"),
        ("promotion", {"reject_below": 0.1}, "promotion.reject_below"),
    ],
)
def test_an_invalid_value_is_reported(part: str, value: object, named: str):
    with pytest.raises(RecipeError, match=named) as caught:
        recipe_from({**SMALL, part: value}, subject="mine.toml")
    assert caught.value.subject == "mine.toml"
    assert caught.value.next_step


def test_all_invalid_values_are_reported_at_once():
    with pytest.raises(RecipeError, match=r"seed: .*; .*optimizer\.lr: "):
        recipe_from({**SMALL, "seed": -1, "optimizer": {"lr": -1}})


def test_an_unknown_name_lists_the_recipes():
    with pytest.raises(RecipeError, match=r"weekly: no such recipe.*baseline, baseline_4200, nightly, smoke"):
        load_recipe("weekly")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"[[[", None])
def test_an_unreadable_file_is_a_recipe_error(tmp_path: Path, content: bytes | None):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.toml: the recipe cannot be read"):
        load_recipe(str(path))


def test_a_recipe_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        recipe_from(SMALL).seed = 3  # type: ignore[misc]


def test_another_budget_is_another_recipe():
    recipe = recipe_from(SMALL)
    assert recipe.with_minutes(None) is recipe
    longer = recipe.with_minutes(2.5)
    assert isinstance(longer, Recipe)
    assert (longer.budget.minutes, longer.budget.steps, recipe.budget.minutes) == (2.5, 10, None)
    assert longer.recipe_hash != recipe.recipe_hash
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(RecipeError, match=r"budget\.minutes"):
            recipe.with_minutes(minutes)


def test_old_names_are_read_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="'seed' is now called 'baseline'"):
        assert load_recipe("seed") == load_recipe("baseline")
    with pytest.warns(FutureWarning, match="'average_decay' is now called 'ema_decay'"):
        assert recipe_from({**SMALL, "average_decay": 0.9}).ema_decay == 0.9
    with pytest.warns(FutureWarning, match="'flip_at_prediction' is now called 'tta_flip'"):
        assert recipe_from({**SMALL, "flip_at_prediction": True}).tta_flip


def test_removed_values_are_refused_where_they_would_change_something() -> None:
    neutral = {"loss": {"bce": 1.0, "soft_jaccard": 0.0}, "augment": {"gamma": 0.0, "noise": 0.0, "flip": True}}
    assert recipe_from({**SMALL, **neutral}) == recipe_from({**SMALL, "augment": {"flip": True}})
    with pytest.raises(RecipeError, match=r"loss"):
        recipe_from({**SMALL, "loss": {"bce": 1.0, "soft_jaccard": 0.5}})
    with pytest.raises(RecipeError, match=r"augment\.gamma"):
        recipe_from({**SMALL, "augment": {"gamma": 0.2}})


def test_a_recipe_of_brackets_is_a_bad_recipe(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("name = " + "[" * 100_000)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "widths", [10**9, 8]),
        ("model", "widths", [20_000]),
        ("budget", "batch_size", 10**9),
        ("budget", "steps", 10**30),
        ("budget", "minutes", 1e300),
        ("optimizer", "lr", 1e300),
        ("optimizer", "weight_decay", 1e300),
        ("optimizer", "clip_norm", 1e300),
        ("augment", "gain", 1e300),
        ("input", "std", [5e-324]),
        ("input", "std", [1e300]),
        ("input", "mean", [1e300]),
        ("promotion", "bootstrap_samples", 10**12),
    ],
)
def test_absurd_values_are_refused_by_name(part: str, name: str, value: object) -> None:
    values = load_recipe("smoke").model_dump()
    with pytest.raises(RecipeError, match=name):
        recipe_from({**values, part: {**values[part], name: value}})
