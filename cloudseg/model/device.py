"""Choose the device and precision of a process, with the reason, and set the process-wide switches for them.

Torch is imported by the functions that ask it: a prediction in int8 does not need it (docs/decisions/0015_int8.md).
"""

import ctypes
import logging
import math
import platform
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import psutil

from cloudseg.errors import SettingsError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# <malloc.h> of glibc; the values -1 and 256 MiB follow mallopt(3). M_MMAP_MAX 0 takes large blocks from the heap
# instead of mapping, faulting and unmapping each activation again; the trim threshold keeps the heap between two steps.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_MAX: Final = -4


CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes this CPU. Tests replace it by a file of another CPU."""
GPU_FILES = tuple(Path("/dev") / name for name in ("nvidiactl", "nvidia0", "dxg", "kfd"))
"""Device files of the drivers of NVIDIA, of Windows' subsystem for Linux, and of AMD. Tests replace them."""
BF16_UNITS: Final = ("amx_bf16", "avx512_bf16", "bf16")
"""Names in /proc/cpuinfo: AMX and AVX-512 of x86, bf16 of Armv8.6. Others compute bf16 in float32, with two more
conversions."""
_BF16_WORTH: Final = 1.25
"""Times as fast as fp32: a smaller gain is not worth the 16 bits that bf16 leaves out."""
_BF16_TURNS: Final = 5
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
    provisional: bool = False
    """Whether torch was not asked: weights without an int8 file choose again."""

    @property
    def torch(self) -> "torch.device":
        """The device as a `torch.device`."""
        device: torch.device = import_torch().device(self.kind if self.index is None else f"{self.kind}:{self.index}")
        return device

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs in the device's precision; parameters stay float32."""
        torch = import_torch()
        context: AbstractContextManager[object] = torch.autocast(
            self.kind, dtype=torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
        )
        return context


def choose_device(
    wanted: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    threads: int = 0,
    int8: Literal["auto", "off"] = "off",
) -> Device:
    """Choose the device and the precision by asking torch.

    Args:
        wanted: "auto" uses a GPU if one is visible to torch.
        precision: "auto" uses bf16 if the device has arithmetic for it that is faster.
        threads: CPU threads of torch; 0 uses every CPU of the process.
        int8: "auto" uses the int8 file of weights if the CPU has int8 arithmetic that sums exactly.

    Raises:
        SettingsError: a GPU is requested and none is visible to torch, or torch is not installed.
    """
    torch = import_torch()
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


def choose_int8(
    wanted: Literal["auto", "cpu", "cuda"] = "auto", threads: int = 0, int8: Literal["auto", "off"] = "auto"
) -> Device | None:
    """Return the CPU as the device of a prediction in int8, without importing torch; None where torch must be asked.

    That is where int8 is off or not exact, where ONNX Runtime is not installed, where a GPU is requested, or where one
    may be: a GPU is preferred to int8.

    Args:
        wanted: "cpu" does not look for a GPU.
        threads: as in `choose_device`.
        int8: as in `choose_device`.
    """
    unit = int8_unit(cpu_flags()) if int8 == "auto" and wanted != "cuda" else None
    if unit is None or find_spec("onnxruntime") is None or (wanted == "auto" and may_have_gpu()):
        return None
    why = "cpu was requested" if wanted == "cpu" else "this machine has no GPU driver"
    reason = f"cpu ({platform.processor() or platform.machine()}): {why}; int8: the CPU has {unit}"
    return Device(kind="cpu", precision="fp32", threads=threads, reason=reason, int8=unit, provisional=True)


def may_have_gpu() -> bool:
    """Return whether torch might find a GPU: on Linux if a driver's device file exists, on macOS never."""
    if platform.system() == "Linux":
        return any(file.exists() for file in GPU_FILES)
    return platform.system() != "Darwin"


def import_torch() -> Any:
    """Import torch.

    Raises:
        SettingsError: it is not installed (the core works without it).
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise SettingsError(
            "this step needs torch",
            subject=str(error.name),
            found="not installed",
            next_step="Install the extra: pip install 'cloudseg[ml]'.",
        ) from error
    return torch


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

    A CPU that has it is measured, because the name does not say whether it is fast: with AVX512_BF16 and without AMX
    bf16 took twice as long as fp32 on Intel and half as long on AMD (docs/log.md). Both are far from the limit, so that
    every process on a machine chooses the same.
    """
    if kind == "cuda":
        return "bf16 tensor cores" if import_torch().cuda.get_device_capability() >= (8, 0) else None
    unit = next((unit for unit in BF16_UNITS if unit in cpu_flags()), None)
    if unit is None:
        return None
    speedup = bf16_speedup()
    log.info("%s: a convolution in bf16 is %.2f times as fast as in fp32", unit, speedup)
    return unit if speedup >= _BF16_WORTH else None


def bf16_speedup() -> float:
    """Measure how many times as fast as in fp32 this CPU computes a 3x3 convolution of 64 channels in bf16.

    The best of interleaved turns of one thread, by its CPU time: other processes do not matter. About 0.1 s.
    """
    torch = import_torch()
    x = torch.ones(1, 64, 64, 64).to(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3).to(memory_format=torch.channels_last)
    best = {False: math.inf, True: math.inf}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for in_bf16 in (False, True) * _BF16_TURNS:
                began = time.thread_time()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bf16, cache_enabled=False):
                    torch.nn.functional.conv2d(x, weight, padding=1)
                best[in_bf16] = min(best[in_bf16], time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return best[False] / best[True]


def int8_unit(flags: frozenset[str]) -> str | None:
    """Return the name of the int8 arithmetic of a CPU with these flags, None if it has none that sums exactly."""
    return next((unit for unit in INT8_UNITS if unit in flags), None)


def cpu_flags() -> frozenset[str]:
    """Return the words of /proc/cpuinfo; none if it does not exist."""
    return frozenset(CPUINFO.read_text(encoding="utf-8").split()) if CPUINFO.is_file() else frozenset()


def set_up(device: Device) -> None:
    """Set threads and deterministic kernels of this process for the device; idempotent."""
    torch = import_torch()
    threads = device.threads or usable_cpus()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.kind == "cuda":
        # The gradient of bilinear upsampling is summed in random order otherwise, and a resumed run would differ.
        # An operation without a deterministic kernel warns instead of failing.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use (its affinity mask)."""
    try:
        return max(1, len(psutil.Process().cpu_affinity()))
    except AttributeError:  # psutil has no affinity on macOS
        return psutil.cpu_count() or 1


@cache
def keep_activations_mapped() -> bool:
    """Make glibc keep freed memory instead of unmapping it: saves a third of the CPU time of torch's forward passes.

    Only for torch: ONNX Runtime has an arena of its own. A heap that keeps everything falls into pieces, so a scene of
    10 980 x 10 980 pixels in int8 would peak at 1750 MiB instead of 1010.

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
