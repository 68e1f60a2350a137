"""The processes that train together: one, or those that `torchrun` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import distributed

from cloudseg.model.device import Device


@dataclass(frozen=True)
class Group:
    """This process among `world`; only `rank` 0 writes to the store and the catalog."""

    rank: int
    world: int
    device: Device

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the element-wise sum over all processes, on the CPU."""
        if self.world == 1:
            return values
        shared = values.to(self.device.torch)
        distributed.all_reduce(shared)
        return shared.cpu()

    def from_leader(self, value: float) -> float:
        """Return the leader's number to everyone."""
        return float(self.sum(torch.tensor([value if self.leads else 0.0], dtype=torch.float64))[0])

    def any(self, value: bool) -> bool:
        """Return whether the value is true in some process."""
        return bool(self.sum(torch.tensor([float(value)], dtype=torch.float64))[0] > 0)

    @torch.no_grad()
    def average_buffers(self, net: torch.nn.Module) -> None:
        """Return every process the mean of all running statistics of BatchNorm, so that all hold one net after each step."""
        if self.world == 1:
            return
        buffers = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        distributed.all_reduce(flat)
        flat /= self.world
        for buffer, mean in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def wait(self) -> None:
        """Wait until every process came here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def join_group(device: Device) -> Iterator[Group]:
    """Join the processes of `torchrun` (RANK, WORLD_SIZE, LOCAL_RANK ... in the environment), or be alone.

    NCCL between GPUs, each process on the GPU of its LOCAL_RANK; gloo between CPUs.
    """
    if not distributed.is_torchelastic_launched():
        yield Group(0, 1, device)
        return
    if device.kind == "cuda":
        device = replace(device, index=int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device.torch)
    distributed.init_process_group("nccl" if device.kind == "cuda" else "gloo")
    try:
        yield Group(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()
