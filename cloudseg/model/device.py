"""Choose the device and precision of a process, with the reason, and set the process-wide switches for them."""

import ctypes
import logging
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import psutil
import torch

from cloudseg.errors import SettingsError

log = logging.getLogger(__name__)

# <malloc.h> of glibc; the values -1 and 256 MiB follow mallopt(3). M_MMAP_MAX 0 takes large blocks from the heap
# instead of mapping, faulting and unmapping each activation again; the trim threshold keeps the heap between two steps.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_MAX: Final = -4


CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes this CPU. Tests replace it by a file of another CPU."""
INT8_UNITS: Final = ("avx512_vnni", "avx_vnni", "i8mm", "asimddp")
"""Names in /proc/cpuinfo: VNNI of x86, int8 matrix product and dot product of Arm.

They sum products of unsigned and signed 8-bit numbers exactly; older x86 CPUs sum pairs of them in 16 bits, which
overflows.
"""


@dataclass(frozen=True)
class Device:
    """Where and how to compute."""

    kind: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    threads: int
    """CPU threads of torch; 0 keeps torch's default."""
    reason: str
    """Why this device and this precision: one line for the log and the run's row."""
    index: int | None = None
    """Index of the GPU on this machine; None uses the current one."""
    int8: str | None = None
    """Name of the CPU's int8 arithmetic; weights that have an int8 file are used with it. None: int8 is not used."""

    @property
    def torch(self) -> torch.device:
        """The device as a `torch.device`."""
        return torch.device(self.kind if self.index is None else f"{self.kind}:{self.index}")

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs in the device's precision; parameters stay float32."""
        return torch.autocast(self.kind, dtype=torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)


def choose_device(
    wanted: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    threads: int = 0,
    int8: Literal["auto", "off"] = "off",
) -> Device:
    """Choose the device and the precision.

    Args:
        wanted: "auto" uses a GPU if one is visible to torch.
        precision: "auto" uses bf16 if the device has arithmetic for it that is worth using.
        threads: CPU threads of torch; 0 uses every CPU of the process.
        int8: "auto" uses the int8 file of weights if the CPU has int8 arithmetic that sums exactly.

    Raises:
        SettingsError: a GPU is requested and none is visible to torch.
    """
    gpu = torch.cuda.is_available()
    if wanted == "cuda" and not gpu:
        raise SettingsError(
            "no GPU is visible to torch",
            subject="device",
            found="torch.cuda.is_available() is False",
            expected="a CUDA device",
            next_step="Set CLOUDSEG_DEVICE=auto or cpu, or assign a GPU to this process.",
        )
    kind: Literal["cpu", "cuda"] = "cuda" if gpu and wanted != "cpu" else "cpu"
    name = torch.cuda.get_device_name() if kind == "cuda" else (platform.processor() or platform.machine())
    why = f"{kind} ({name}): " + (
        f"{wanted} was requested" if wanted != "auto" else ("torch found a GPU" if gpu else "torch found no GPU")
    )
    chosen, because = _choose_precision(kind, precision)
    unit = int8_unit(cpu_flags()) if kind == "cpu" and int8 == "auto" else None
    return Device(kind=kind, precision=chosen, threads=threads, reason=f"{why}; {because}", int8=unit)


def _choose_precision(kind: str, wanted: str) -> tuple[Literal["fp32", "bf16"], str]:
    if wanted == "fp32":
        return "fp32", "fp32: requested"
    if wanted == "bf16":
        return "bf16", "bf16: requested"
    unit = bf16_unit(kind)
    return (
        ("bf16", f"bf16: the device has {unit}")
        if unit
        else ("fp32", "fp32: the device has no bf16 arithmetic worth using")
    )


@cache
def bf16_unit(kind: str) -> str | None:
    """Return the name of the device's bf16 arithmetic, None if it has none that is worth using.

    On a CPU: AMX, AVX512_BF16 of AMD, Armv8.6 BF16. Intel's AVX512_BF16 without AMX is not used: a 64-channel
    convolution took 0.127 s there in bf16 and 0.068 s in fp32; on AMD bf16 is twice as fast (docs/log.md). The
    choice depends on the processor's name, not on a measurement, so that a repeated run computes the same.
    """
    if kind == "cuda":
        return "bf16 tensor cores" if torch.cuda.get_device_capability() >= (8, 0) else None
    words = cpu_flags()
    worth_using = ("amx_bf16", "bf16") + (() if "GenuineIntel" in words else ("avx512_bf16",))
    return next((unit for unit in worth_using if unit in words), None)


def int8_unit(flags: frozenset[str]) -> str | None:
    """Return the name of the int8 arithmetic of a CPU with these flags, None if it has none that sums exactly."""
    return next((unit for unit in INT8_UNITS if unit in flags), None)


def cpu_flags() -> frozenset[str]:
    """Return the words of /proc/cpuinfo; none if it does not exist."""
    return frozenset(CPUINFO.read_text(encoding="utf-8").split()) if CPUINFO.is_file() else frozenset()


def set_up(device: Device) -> None:
    """Set threads, deterministic kernels and allocator of this process for the device; idempotent."""
    threads = device.threads or usable_cpus()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    keep_activations_mapped()


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use (its affinity mask)."""
    try:
        return max(1, len(psutil.Process().cpu_affinity()))
    except AttributeError:  # psutil has no affinity on macOS
        return psutil.cpu_count() or 1


@cache
def keep_activations_mapped() -> bool:
    """Make glibc keep freed memory instead of unmapping it: saves a third of the CPU time of a forward pass.

    The same as `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=... MALLOC_TOP_PAD_=256M`, which would have to be set before
    the process starts.

    Returns:
        Whether it worked; False, with a line in the log, if the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        log.info("allocator: not glibc, unchanged")
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_TOP_PAD, 256 << 20)])
    log.info("allocator: glibc %s activations mapped", "keeps" if done else "refused to keep")
    return done
