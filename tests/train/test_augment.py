"""Each augmentation does what the recipe says, draws only where it is on, and never changes a label silently."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cloudseg.recipe import Recipe
from cloudseg.train.augment import Augmentation, Draw, Sample
from tests.tiny_world import recipe

SIZE, CHIP = 64, 128
RGBN = ["red", "green", "blue", "nir"]
MANY = 300
GAINS = {"flip": True, "rotate90": True, "gain": 0.3, "band_gain": 0.1, "saturate": 0.5, "scale": 0.4}
ADDED = {"offset": 0.1, "rectangle": 0.5, "drop_bands": 0.5, "interpolation": "random", "sharpness": 1.0}
NEWEST = {"power": 0.5, "gray": 0.25, "cutmix": 0.5}


def settings(augment: dict[str, Any], bands: list[str] = RGBN) -> Recipe:
    return recipe(
        augment=augment, model={"bands": bands}, data={"chip_size": CHIP, "crop_size": SIZE}, input={"clip": 0.7}
    )


def augmentation(augment: dict[str, Any], bands: list[str] = RGBN) -> Augmentation:
    return Augmentation(settings(augment, bands), size=SIZE, chip_size=CHIP)


def draws(augment: dict[str, Any], bands: list[str] = RGBN, count: int = MANY) -> list[Draw]:
    drawn = augmentation(augment, bands)
    return [drawn.draw(np.random.default_rng(seed), (CHIP, CHIP)) for seed in range(count)]


def batch(count: int, bands: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(0, 1, (count, bands, SIZE, SIZE)).astype(np.float32))
    return x, torch.from_numpy(rng.integers(0, 2, (count, SIZE, SIZE)).astype(np.uint8))


class Counting:
    """A generator that counts what is drawn from it."""

    def __init__(self) -> None:
        self._rng, self.calls = np.random.default_rng(0), 0

    def __getattr__(self, name: str) -> Any:
        self.calls += 1
        return getattr(self._rng, name)


def test_a_value_at_its_default_draws_nothing() -> None:
    rng = Counting()
    drawn = augmentation({}).draw(rng, (CHIP, CHIP))  # type: ignore[arg-type]
    assert rng.calls == 2, "row and column of the window"
    assert replace(drawn, row=0, col=0) == Draw(side=SIZE, row=0, col=0)


def test_what_came_later_changes_no_earlier_draw() -> None:
    for old, new in zip(draws(GAINS), draws(GAINS | ADDED), strict=True):
        for name in ("side", "row", "col", "flips", "turns", "ceiling"):
            assert getattr(old, name) == getattr(new, name)
        assert old.factor is not None
        assert new.factor is not None
        assert np.array_equal(old.factor, new.factor)


def test_the_newest_values_change_no_draw_of_those_before() -> None:
    for old, new in zip(draws(GAINS | ADDED), draws(GAINS | ADDED | NEWEST), strict=True):
        assert repr(old) == repr(replace(new, power=1.0, gray=False, mixed=None))


def test_draws_depend_on_the_generator_only() -> None:
    augment = GAINS | ADDED | NEWEST
    for one, other in zip(draws(augment, count=20), draws(augment, count=20), strict=True):
        assert repr(one) == repr(other)


def test_the_draws_of_a_seed_never_change() -> None:
    """A training that began under an earlier release goes on with its draws: numbers of 30 November 2026."""
    drawn = draws(GAINS, count=8)[7]
    assert (drawn.side, drawn.row, drawn.col, drawn.flips, drawn.turns) == (59, 47, 62, (-2,), 0)
    assert drawn.factor is not None
    assert drawn.factor.tolist() == pytest.approx([1.1070597, 1.2933643, 1.2874218, 1.209131])
    assert drawn.ceiling == pytest.approx(0.4113702448403093)


def test_an_offset_is_added_to_half_of_the_samples() -> None:
    drawn = draws({"offset": 0.1})
    hazy = [draw.offset for draw in drawn if draw.offset]
    assert len(hazy) == pytest.approx(MANY / 2, abs=30)
    assert min(hazy) > 0
    assert max(hazy) <= 0.1
    x, label = batch(2)
    before = x.clone()
    chosen = [replace(drawn[0], offset=0.0), replace(drawn[0], offset=0.07)]
    after, same = augmentation({"offset": 0.1}).change_radiometry(x, label.clone(), chosen)
    assert torch.equal(after[0], before[0])
    assert torch.allclose(after[1], before[1] + 0.07)
    assert torch.equal(same, label)


def test_sharpness_changes_what_differs_from_the_pixels_around() -> None:
    drawn = [draw.sharpness for draw in draws({"sharpness": 1.0})]
    assert 0.5 <= min(drawn) < 0.55
    assert 1.9 < max(drawn) <= 2
    assert np.median(drawn) == pytest.approx(1, abs=0.1)
    x, label = torch.full((3, 4, SIZE, SIZE), 0.2), torch.zeros((3, SIZE, SIZE), dtype=torch.uint8)
    x[..., 10, 10] = 0.65  # the mean of the nine pixels there is 0.25
    x[..., 30:, :] = 0  # no data
    before = x.clone()
    chosen = [Draw(side=SIZE, row=0, col=0, sharpness=factor) for factor in (1.0, 0.5, 2.0)]
    after, _ = augmentation({"sharpness": 1.0}).change_radiometry(x, label, chosen)
    assert torch.allclose(after[0], before[0])
    assert after[1, 0, 10, 10].item() == pytest.approx(0.25 + 0.5 * 0.4)
    assert after[2, 0, 10, 10].item() == pytest.approx(0.25 + 2 * 0.4)
    even = torch.ones(30, SIZE, dtype=torch.bool)
    even[9:12, 9:12] = False
    assert torch.allclose(after[:, :, :30][..., even], torch.tensor(0.2)), "edges and no data change nothing"


def test_power_is_an_exponent_of_half_of_the_samples() -> None:
    drawn = [draw.power for draw in draws({"power": 0.5})]
    assert sum(power != 1 for power in drawn) == pytest.approx(MANY / 2, abs=30)
    assert 1 / 1.5 <= min(drawn) < 0.7
    assert 1.45 < max(drawn) <= 1.5
    x, label = torch.full((2, 4, SIZE, SIZE), 0.35), torch.zeros((2, SIZE, SIZE), dtype=torch.uint8)
    x[:, :, 0] = 0  # no data
    chosen = [Draw(side=SIZE, row=0, col=0, power=power) for power in (1.0, 2.0)]
    after, _ = augmentation({"power": 0.5}).change_radiometry(x, label, chosen)
    assert after[0, 0, 5, 5].item() == pytest.approx(0.35)
    assert after[1, 0, 5, 5].item() == pytest.approx(0.7 * 0.5**2)
    assert not after[:, :, 0].any()


def test_gray_is_the_mean_of_the_colors_and_leaves_other_bands() -> None:
    drawn = [draw.gray for draw in draws({"gray": 0.25})]
    assert sum(drawn) == pytest.approx(MANY / 4, abs=30)
    x, label = batch(2)
    before = x.clone()
    chosen = [Draw(side=SIZE, row=0, col=0, gray=gray) for gray in (False, True)]
    after, _ = augmentation({"gray": 0.25}).change_radiometry(x, label, chosen)
    assert torch.equal(after[0], before[0])
    for band in range(3):
        assert torch.allclose(after[1, band], before[1, :3].mean(dim=0))
    assert torch.equal(after[1, 3], before[1, 3])


def test_cutmix_takes_pixels_label_and_validity_of_the_next_sample() -> None:
    drawn = draws({"cutmix": 0.5})
    boxes = [draw.mixed for draw in drawn]
    assert sum(box is not None for box in boxes) == pytest.approx(MANY / 2, abs=30)
    x, label = batch(MANY)
    valid = torch.from_numpy(np.random.default_rng(1).random((MANY, SIZE, SIZE)) < 0.5)
    before = x.clone(), label.clone(), valid.clone()
    after = augmentation({"cutmix": 0.5}).mix(x, label, valid, drawn)
    for number, box in enumerate(boxes):
        for old, new in zip(before, after, strict=True):
            expected = old[number].clone()
            if box is not None:
                rows, cols = slice(box.top, box.bottom), slice(box.left, box.right)
                expected[..., rows, cols] = old[(number + 1) % MANY][..., rows, cols]
            assert torch.equal(new[number], expected)
    assert all(torch.equal(old, same) for old, same in zip(before, (x, label, valid), strict=True)), "not in place"


def test_the_offset_comes_after_the_gain_and_before_saturation() -> None:
    x, label = batch(1)
    before = x.clone()
    draw = Draw(side=SIZE, row=0, col=0, factor=np.full(4, 2, np.float32), offset=0.1, ceiling=0.5)
    after, _ = augmentation(GAINS | ADDED).change_radiometry(x, label, [draw])
    assert torch.allclose(after, (before * 2 + 0.1).clamp(max=0.5))


def test_a_rectangle_is_constant_in_its_bands() -> None:
    x, label = batch(MANY)
    before, truth = x.clone(), label.clone()
    drawn = draws({"rectangle": 0.5})
    after, changed = augmentation({"rectangle": 0.5}).change_radiometry(x, label, drawn)
    found = [draw.rectangle for draw in drawn]
    assert sum(r is not None for r in found) == pytest.approx(MANY / 2, abs=30)
    blind = cut_off = 0
    for number, rectangle in enumerate(found):
        if rectangle is None:
            assert torch.equal(after[number], before[number])
            assert torch.equal(changed[number], truth[number])
            continue
        window = slice(rectangle.top, rectangle.bottom), slice(rectangle.left, rectangle.right)
        height, width = rectangle.bottom - rectangle.top, rectangle.right - rectangle.left
        assert height * width / SIZE**2 == pytest.approx(0.3, abs=0.22)
        assert max(height, width) / min(height, width) < 3.6
        assert rectangle.covered.any()
        cut_off += SIZE in (height, width)
        expected, expected_label = before[number].clone(), truth[number].clone()
        for band in np.flatnonzero(rectangle.covered):
            assert 0 <= rectangle.reflectance[band] <= 0.7
            expected[band][window] = float(rectangle.reflectance[band])
        if rectangle.covered.all():
            blind += 1
            expected_label[window] = 255
        assert torch.equal(after[number], expected)
        assert torch.equal(changed[number], expected_label)
    assert 0 < blind < 30, "a rectangle over all four bands is one of fifteen"
    assert cut_off < 10, "the longest side fits; none is cut off at the edge and smaller than its area"


def test_a_rectangle_over_all_that_the_net_sees_is_ignored() -> None:
    """Red, green and blue are covered, near infrared is dropped: no band is left."""
    drawn = draws({"rectangle": 1.0}, count=1)[0]
    assert drawn.rectangle is not None
    covering = replace(drawn.rectangle, covered=np.array([True, True, True, False]))
    for dropped, ignored in ((False, 0), (True, (covering.bottom - covering.top) * (covering.right - covering.left))):
        x, label = batch(1)
        _, changed = augmentation({"rectangle": 1.0}).change_radiometry(
            x, label, [replace(drawn, rectangle=covering, dropped=dropped)]
        )
        assert int((changed == 255).sum()) == ignored


def test_dropped_bands_are_zero_for_the_net() -> None:
    drawn = draws({"drop_bands": 0.5})
    assert sum(draw.dropped for draw in drawn) == pytest.approx(MANY / 2, abs=30)
    x, _ = batch(2)
    before = x.clone()
    after = augmentation({"drop_bands": 0.5}).drop_bands(
        x, [replace(drawn[0], dropped=True), replace(drawn[0], dropped=False)]
    )
    assert int(after[0, 3].count_nonzero()) == 0
    assert torch.equal(after[0, :3], before[0, :3])
    assert torch.equal(after[1], before[1])


def test_a_range_of_zooms_is_kept() -> None:
    zooms = [SIZE / draw.side for draw in draws({"scale": [0.5, 1.1]})]
    assert 0.5 <= min(zooms) < 0.53
    assert 1.05 < max(zooms) <= 1.11
    assert np.mean(np.log(zooms)) == pytest.approx((math.log(0.5) + math.log(1.1)) / 2, abs=0.05), "log-uniform"


def test_interpolations_are_drawn_and_do_what_they_are_called() -> None:
    drawn = draws({"scale": 0.4, "interpolation": "random"})
    kinds = [draw.interpolation for draw in drawn]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        kind: pytest.approx(MANY / 3, abs=30) for kind in ("antialiased", "bilinear", "nearest")
    }
    checks = torch.from_numpy(np.indices((CHIP, CHIP)).sum(axis=0) % 2).float()
    window = Sample(checks[None].repeat(4, 1, 1), checks.to(torch.uint8), torch.ones(CHIP, CHIP, dtype=torch.bool))
    changed = {
        kind: augmentation({}).change_geometry(window, Draw(side=CHIP, row=0, col=0, interpolation=kind))  # type: ignore[arg-type]
        for kind in ("antialiased", "bilinear", "nearest")
    }
    assert changed["antialiased"].reflectance[:, 8:-8, 8:-8].std() < 0.01, "pixels of a fine pattern become gray"
    assert set(changed["nearest"].reflectance.unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(changed["bilinear"].reflectance, changed["antialiased"].reflectance)


@pytest.mark.parametrize("flips", [(), (-1,), (-2,), (-1, -2)])
@pytest.mark.parametrize("side", [SIZE, CHIP])
def test_pixels_label_and_observed_pixels_move_together(flips: tuple[int, ...], side: int) -> None:
    label = np.random.default_rng(1).integers(0, 2, (side, side)).astype(np.uint8)
    pixels = torch.from_numpy(label)
    for turns in range(4):
        draw = Draw(side=side, row=0, col=0, flips=flips, turns=turns, interpolation="nearest")
        found = augmentation({}).change_geometry(Sample(pixels.float()[None], pixels, pixels.bool()), draw)
        small = label if side == SIZE else label[1::2, 1::2]  # the centers of the pixels that are twice as large
        expected = np.rot90(np.flip(small, flips) if flips else small, turns)
        assert np.array_equal(found.label, expected)
        assert torch.equal(found.reflectance[0], found.label.float())
        assert torch.equal(found.valid, found.label.bool())


def test_a_batch_is_changed_as_each_sample_alone() -> None:
    augment = GAINS | ADDED | NEWEST
    drawn, one = draws(augment, count=12), augmentation(augment)
    x, label = batch(12)
    alone = [one.change_radiometry(x[i : i + 1].clone(), label[i : i + 1].clone(), drawn[i : i + 1]) for i in range(12)]
    together = one.change_radiometry(x, label, drawn)
    assert torch.equal(together[0], torch.cat([pixels for pixels, _ in alone]))
    assert torch.equal(together[1], torch.cat([classes for _, classes in alone]))
