"""Bf16 is used where the CPU has it and a measurement finds it faster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cloudseg.model import device
from cloudseg.model.device import bf16_speedup, bf16_unit, choose_device


@pytest.fixture(autouse=True)
def _measured_anew() -> Iterator[None]:
    """Forget what was measured before, and what is chosen here."""
    bf16_unit.cache_clear()
    yield
    bf16_unit.cache_clear()


@pytest.mark.parametrize(
    ("flags", "speedup", "unit"),
    [
        ("GenuineIntel avx512f amx_bf16 avx512_bf16", 3.0, "amx_bf16"),
        ("GenuineIntel avx512f avx512_bf16 avx512_vnni", 0.54, None),
        ("AuthenticAMD avx512f avx512_bf16", 2.0, "avx512_bf16"),
        ("asimd bf16", 1.9, "bf16"),
        ("asimd bf16", 1.1, None),
    ],
)
def test_a_cpu_that_has_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, speedup: float, unit: str | None
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(device, "CPUINFO", cpuinfo)
    monkeypatch.setattr(device, "bf16_speedup", lambda: speedup)
    assert bf16_unit("cpu") == unit
    assert choose_device("cpu").precision == ("bf16" if unit else "fp32")


def test_a_cpu_without_it_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : GenuineIntel avx2 avx512f avx512_vnni\n")
    monkeypatch.setattr(device, "CPUINFO", cpuinfo)
    monkeypatch.setattr(device, "bf16_speedup", lambda: pytest.fail("measured"))
    assert choose_device("cpu").precision == "fp32"


def test_the_measurement_leaves_threads_and_random_numbers_as_they_were() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert 0.01 < bf16_speedup() < 100
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
