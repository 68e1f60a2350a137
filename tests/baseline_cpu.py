"""The tests as on an x86-64 CPU without AVX, VNNI and AMX, on one core: `make test-baseline-cpu`.

PyTorch, oneDNN, MKL, OpenBLAS and NumPy read environment variables when they are loaded, so these are set before pytest
starts (Makefile); child processes inherit them. cloudseg's own check reads /proc/cpuinfo, which `switch_off` replaces
in this process. ONNX Runtime has no switch: it uses what the CPU has. Therefore tests never compute int8 with it
unless `cloudseg.model.device.int8_unit` allows it (fixture `exact_int8`).
"""

import os
from pathlib import Path

import pytest

OPTION = "--baseline-cpu"
CPUINFO = Path(__file__).with_name("baseline_cpuinfo.txt")


def switch_off() -> None:
    """Use one core and hide int8 and bf16 units from cloudseg.

    Raises:
        pytest.UsageError: PyTorch uses CPU extensions.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import torch

    from cloudseg.model import device

    device.CPUINFO = CPUINFO
    device.bf16_unit.cache_clear()
    if (found := torch.backends.cpu.get_cpu_capability()) != "DEFAULT":
        raise pytest.UsageError(
            f"{OPTION}: PyTorch uses {found}; run `make test-baseline-cpu`, which sets the environment"
        )


def describe() -> str:
    """Return the line of the report header that lists the used CPU features."""
    import torch

    from cloudseg.model.device import bf16_unit, cpu_flags, int8_unit

    units = f"int8 {int8_unit(cpu_flags()) or 'none'}, bf16 {bf16_unit('cpu') or 'none'}"
    return f"CPU: PyTorch {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} thread(s), {units}"
