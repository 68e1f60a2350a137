"""A recipe accepts exactly the sizes that its net can take."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cloudseg.catalog import tables as t
from cloudseg.errors import RecipeError
from cloudseg.model.nets import build_model
from cloudseg.recipe import Model, Recipe, recipe_from
from cloudseg.runtime import open_runtime
from cloudseg.stages import retrain, snapshot, train

ARCHITECTURES = ["SimpleUNet", "SimpleUNetV2", "EfficientUNet"]
SIZES = [16, 24, 32, 40, 44, 46, 47, 48, 168, 184, 192, 200]


def recipe_with(architecture: str, levels: int, data: dict[str, Any]) -> Recipe:
    model = {"architecture": architecture, "widths": [2] * levels}
    return recipe_from({"name": "sizes", "description": "", "model": model, "data": data, "budget": {"steps": 1}})


def passes(net: torch.nn.Module, size: int) -> bool:
    """Whether a forward pass of a square input gives an output of the same size."""
    with torch.no_grad():
        try:
            return tuple(net(torch.zeros(1, 3, size, size)).shape) == (1, 1, size, size)
        except RuntimeError:
            return False


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_accepted_sizes_pass_a_forward_pass_and_the_others_are_refused(architecture: str, levels: int) -> None:
    net = build_model(Model.model_validate({"architecture": architecture, "widths": [2] * levels})).eval()
    takes = {size: passes(net, size) for size in SIZES}
    assert any(takes.values())
    for size, fits in takes.items():
        parts = {"crop_size": {"chip_size": 2048, "crop_size": size}}
        if size >= 32:
            parts["chip_size"] = {"chip_size": size}
        for name, data in parts.items():
            if fits:
                assert getattr(recipe_with(architecture, levels, data).data, name) == size
            else:
                with pytest.raises(RecipeError, match=rf"data\.{name} {size} is not a multiple of \d+.*{architecture}"):
                    recipe_with(architecture, levels, data)


@pytest.mark.parametrize("size", [200, 184, 168])
def test_a_refused_crop_leaves_nothing_behind(size: int, runtime_env: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "cloudseg" / "recipes" / "nightly.toml"
    path = tmp_path / "mine.toml"
    path.write_text(shipped.read_text().replace("crop_size = 192", f"crop_size = {size}"))
    runtime = open_runtime()
    for call in (lambda: retrain(str(path)), lambda: snapshot(str(path)), lambda: train("sn-1", recipe=str(path))):
        with pytest.raises(RecipeError, match=f"crop_size {size} is not a multiple of 16, which EfficientUNet"):
            call()
    with runtime.catalog.read() as db:
        assert [db.execute(table.select()).all() for table in (t.snapshot, t.run, t.place)] == [[], [], []]
    assert list(runtime.store.list_keys()) == []
