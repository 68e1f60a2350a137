"""The benchmark of a GPU, as far as a CPU can run it; without a GPU it fails and says so."""

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import TrainingSpeed
from cloudseg.dataset import ChipSet
from cloudseg.recipe import load_recipe
from tests.tiny_world import CPU, recipe


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: the benchmark would run for minutes")
def test_without_a_gpu_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    assert "no GPU is visible to torch: nothing was measured" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--tiles", "0"], ["--scene", "-1"], ["--tiles", "many"], ["extra"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(("name", "flop_per_pixel"), [("nightly", 45.4e3), ("baseline", 773.6e3)])
def test_the_operations_of_a_training_step(name: str, flop_per_pixel: float) -> None:
    """Forward passes of 45.4 and 773.6 kFLOP a pixel; the backward pass takes twice as many operations."""
    chosen = load_recipe(name)
    size = chosen.data.crop_size or chosen.data.chip_size
    assert gpu.training_flop(chosen) == pytest.approx(3 * flop_per_pixel * size**2, rel=0.01)


def test_the_share_of_the_peak() -> None:
    assert gpu.share_of_peak(1000.0, 1e9, 4e12) == pytest.approx(0.25)
    assert gpu.matmul_flops(CPU, size=64, rounds=1) > 0


def test_batches_grow_until_the_memory_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    def work(batch_size: int) -> TrainingSpeed:
        if batch_size > 32:
            raise torch.cuda.OutOfMemoryError
        return TrainingSpeed("tiny", batch_size, 1.0, 0.1, 1.0)

    assert [found.batch_size for found in gpu.grow(work, 8)] == [8, 16, 32]
    assert "a batch of 64 does not fit" in capsys.readouterr().out


def test_the_cpu_agrees_with_itself(chip_set: ChipSet) -> None:
    chosen = recipe(augment={"flip": True, "scale": 0.3, "rectangle": 0.5})
    speed = gpu.measure_training(chip_set, gpu.with_batch(chosen, 3), CPU, 1e12, steps=3)
    assert speed.batch_size == 3
    assert speed.share_of_peak == pytest.approx(speed.images_per_s * gpu.training_flop(chosen) / 1e12)
    found = gpu.check(chip_set, chosen, CPU)
    assert found.resumed_equal
    assert found.labels_equal
    assert (found.waits_between_reads, found.batch_difference, found.fp32_difference) == (0, 0.0, 0.0)
    assert 0 < found.bf16_difference < 0.1
