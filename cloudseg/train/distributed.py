"""Data-parallel training: the processes that `torchrun` started, or one process alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import distributed

from cloudseg.model.device import Device


@dataclass(frozen=True)
class DistributedContext:
    """This process among `world_size`; only the main process (`rank` 0) writes to the store and the catalog."""

    rank: int
    world_size: int
    device: Device

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the element-wise sum over all processes, on the CPU."""
        if self.world_size == 1:
            return values
        shared = values.to(self.device.torch)
        distributed.all_reduce(shared)
        return shared.cpu()

    def broadcast(self, value: float) -> float:
        """Return the main process's number in every process."""
        own = torch.tensor([value if self.is_main else 0.0], dtype=torch.float64)
        return float(self.all_reduce_sum(own)[0])

    def any(self, value: bool) -> bool:
        """Return whether the value is true in at least one process."""
        return bool(self.all_reduce_sum(torch.tensor([float(value)], dtype=torch.float64))[0] > 0)

    @torch.no_grad()
    def average_buffers(self, net: torch.nn.Module) -> None:
        """Replace the running statistics of BatchNorm by their mean over all processes, so that all hold equal nets."""
        if self.world_size == 1:
            return
        buffers = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        distributed.all_reduce(flat)
        flat /= self.world_size
        for buffer, mean in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def barrier(self) -> None:
        """Wait until every process has reached this call."""
        if self.world_size > 1:
            distributed.barrier()


@contextmanager
def open_process_group(device: Device) -> Iterator[DistributedContext]:
    """Yield the context of this process; initialize and destroy the process group where `torchrun` started it.

    NCCL between GPUs, each process on the GPU of its LOCAL_RANK; gloo between CPUs. Without `torchrun` (no RANK and
    WORLD_SIZE in the environment) the process is alone.
    """
    if not distributed.is_torchelastic_launched():
        yield DistributedContext(0, 1, device)
        return
    if device.kind == "cuda":
        device = replace(device, index=int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device.torch)
    distributed.init_process_group("nccl" if device.kind == "cuda" else "gloo")
    try:
        yield DistributedContext(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()
