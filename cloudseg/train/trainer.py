"""How a net is trained: loss, learning rate, moving average, and the optimizer step that uses them.

Read it from top to bottom. `cloudseg.train.batch` makes the input of a step, `cloudseg.train.loop` repeats it. There
is no store and no catalog here.
"""

import copy
import hashlib
import math
from typing import Any, Final

import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import TrainingDiverged
from cloudseg.model.device import keep_activations_mapped
from cloudseg.model.encoder import encoder_parameters, load_encoder
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.predictor import Predictor
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.unet import UNet, count_parameters
from cloudseg.model.weights import LoadedModel
from cloudseg.recipe import Optimizer, Recipe
from cloudseg.train.batch import Batch, Batches
from cloudseg.train.checkpoint import (
    Tensors,
    TrainingProgress,
    TrainingState,
    add_prefix,
    load_optimizer,
    optimizer_tensors,
    select_prefix,
)
from cloudseg.train.data import TrainingData
from cloudseg.train.distributed import DistributedContext

# --- loss -------------------------------------------------------------------------------------------------------------


def masked_bce(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy over the labeled pixels of a batch.

    Args:
        logits: float `(batch, row, col)`; computed in float32 for any input type.
        label: uint8 `(batch, row, col)`: 0 clear, 1 cloud, 255 for ignored pixels.

    Returns:
        A scalar; 0 without a gradient for a batch without any labeled pixel.
    """
    known = label != MASK_NO_DATA
    # Multiplied by the mask instead of indexed: the same number of bytes every step, and no host synchronization on a
    # GPU.
    weight = known.float()
    logits = torch.where(known, logits.float(), torch.zeros((), device=logits.device))
    target = (label == MASK_CLOUD).float()
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)


# --- learning rate ----------------------------------------------------------------------------------------------------

# First and last learning rate are lr / 25 and lr / 25 / 10 000, the defaults of PyTorch's OneCycleLR (Smith and Topin
# 2018).
_ONECYCLE_DIV_FACTOR: Final = 25.0
_ONECYCLE_FINAL_DIV_FACTOR: Final = 1e4


def learning_rate(step: float, total_steps: int, optimizer: Optimizer) -> float:
    """Return the learning rate of a step (0 is the first), or of a position between two steps.

    A function of the step alone instead of a `torch.optim.lr_scheduler`: it keeps no state, so a resumed run has
    nothing to restore.
    """
    if optimizer.schedule == "constant":
        return optimizer.lr
    warmup = max(1, round(total_steps * optimizer.warmup_fraction)) if optimizer.warmup_fraction else 0
    done = (step - warmup) / max(1, total_steps - warmup)
    if optimizer.schedule == "cosine":
        return optimizer.lr * (min(1.0, (step + 1) / warmup) if step < warmup else _cosine(1.0, 0.0, done))
    start = optimizer.lr / _ONECYCLE_DIV_FACTOR
    if step < warmup:
        return _cosine(start, optimizer.lr, step / warmup)
    return _cosine(optimizer.lr, start / _ONECYCLE_FINAL_DIV_FACTOR, done)


def _cosine(first: float, last: float, fraction: float) -> float:
    """Interpolate from first to last along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


# --- moving average ---------------------------------------------------------------------------------------------------


class EMA:
    """Exponential moving average of a net's parameters and BatchNorm statistics.

    It is what is validated, kept as best and published when the recipe sets `ema_decay`.
    """

    def __init__(self, net: UNet, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, net: UNet, step: int) -> None:
        """Move the average towards the net after a step (0 is the first)."""
        # The decay grows as (1 + n) / (10 + n) up to its value, so that early averages discard the random initial
        # weights (TensorFlow's ExponentialMovingAverage with num_updates).
        decay = min(self._decay, (1 + step) / (10 + step))
        pairs = list(zip(self.net.state_dict().values(), net.state_dict().values(), strict=True))
        averages, parameters = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        # One call for all tensors: on a GPU hundreds of small kernels would take longer to start than to run.
        get_ema_multi_avg_fn(decay)(  # type: ignore[no-untyped-call]
            averages, parameters, step
        )
        for average, count in pairs:
            if not average.is_floating_point():
                average.copy_(count)


# --- the step ---------------------------------------------------------------------------------------------------------


_READ_EVERY: Final = {"cpu": 1, "cuda": 16}
"""Steps after which the losses are read from the device: reading waits for it, which costs nothing on a CPU."""


class Trainer:
    """One net with its optimizer and moving average, and the step that changes them.

    The same recipe, data, progress and number of processes produce the same result on the same kind of device.

    Args:
        recipe: net, input, optimizer and augmentation.
        data: the chips; only the training chips are read here.
        dist: this process among those that train together.
        progress: of the training; `train_step` advances it.
        parent: parameters of a warm start, None for a cold one.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        dist: DistributedContext,
        progress: TrainingProgress,
        parent: Tensors | None = None,
    ) -> None:
        self.progress = progress
        self._recipe, self._dist, self._device = recipe, dist, dist.device
        self._lr_factor = 1.0 if parent is None else recipe.optimizer.warm_lr_factor
        keep_activations_mapped()
        torch.manual_seed(recipe.seed)
        net = build_model(recipe.model)
        if parent is not None:
            net.load_state_dict(parent, strict=True)
        elif recipe.model.encoder_weights is not None:
            load_encoder(net, recipe.model.bands)
        self.net: UNet = net.to(self._device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = EMA(self.net, recipe.ema_decay) if recipe.ema_decay else None
        self.optimizer = _build_optimizer(self.net, recipe.optimizer, fused=self._device.kind == "cuda")
        self._read_every = _READ_EVERY[self._device.kind]
        self._unread: list[tuple[int, torch.Tensor]] = []
        self._loss = math.nan
        self._best: Tensors = {}
        # Each process normalizes by its own batch; the running statistics are averaged after the step
        # (DistributedContext.average_buffers), so DDP need not broadcast them before it.
        parallel = dist.world_size > 1
        self._module = DistributedDataParallel(self.net, broadcast_buffers=False) if parallel else self.net
        self.batches = Batches(
            data.chip_set,
            data.train,
            recipe,
            rank=dist.rank,
            world_size=dist.world_size,
            device=self._device.torch,
        )

    def train_step(self, batch: Batch) -> float:
        """Do one optimizer step.

        Args:
            batch: of this process, for step `progress.step`.

        Returns:
            The mean loss of all processes before the step; on a GPU the newest one that was read back, because reading
            it waits for the device.

        Raises:
            TrainingDiverged: the loss is not finite. On a CPU nothing was changed; on a GPU a few steps may have been
                taken with it, and none of them is in a checkpoint (`read_losses`).
        """
        step, optimizer = self.progress.step, self._recipe.optimizer
        self._seed_dropout(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group["lr_factor"]

        # Copies from pinned memory overlap with computation; from pageable memory `non_blocking` changes nothing.
        x = batch.x.to(self._device.torch, memory_format=torch.channels_last, non_blocking=True)
        label = batch.label.to(self._device.torch, non_blocking=True)
        self.net.train()
        with self._device.autocast():
            logits = self._module(x)
        loss = masked_bce(logits[:, 0], label)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), optimizer.clip_norm)

        self._unread.append((step, loss.detach()))
        if math.isnan(self._loss) or len(self._unread) >= self._read_every:
            self.read_losses()
        self.optimizer.step()
        self._dist.average_buffers(self.net)
        if self.ema is not None:
            self.ema.update(self.net, step)
        self.progress.step += 1
        return self._loss

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: scheduled, times `warm_lr_factor` after a warm start.

        That of the decoder; the encoder's is `encoder_lr_factor` times that.
        """
        progress = self.progress
        position = progress.schedule_position(step)
        return self._lr_factor * learning_rate(position, progress.schedule_steps, self._recipe.optimizer)

    def _seed_dropout(self, step: int) -> None:
        """Set torch's random state from seed, step and rank, so that a resumed run draws the same Dropout masks."""
        digest = hashlib.sha256(f"{self._recipe.seed}:{step}:{self._dist.rank}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "big"))

    def read_losses(self) -> None:
        """Read the losses of the steps since the last call from the device, and add them to the progress.

        All processes call it together, before the progress or the state is used.

        Raises:
            TrainingDiverged: one is not finite.
        """
        if not self._unread:
            return
        steps, losses = zip(*self._unread, strict=True)
        self._unread = []
        total = self._dist.all_reduce_sum(torch.stack(losses).double().cpu())
        for step, value in zip(steps, (total / self._dist.world_size).tolist(), strict=True):
            if not math.isfinite(value):
                raise TrainingDiverged(
                    "the loss is not finite",
                    subject=f"recipe {self._recipe.name}",
                    found=f"{value} at step {step}",
                    expected="a number",
                    next_step="Lower optimizer.lr or set optimizer.clip_norm in the recipe.",
                )
            self._loss = value
            self.progress.loss_sum += value
            self.progress.loss_count += 1

    # --- what is published --------------------------------------------------------------------------------------------

    @property
    def published_net(self) -> UNet:
        """What would be published now: the moving average if the recipe has one."""
        return self.ema.net if self.ema is not None else self.net

    def predictor(self, net: UNet | None = None) -> Predictor:
        """Return the common forward pass of a net (by default the published one)."""
        chosen = net if net is not None else self.published_net
        return TorchPredictor(LoadedModel(chosen, describe_net(self._recipe, chosen)), self._device)

    def keep_if_best(self, loss: float, epoch: int) -> bool:
        """Keep the published net if its validation loss is the lowest so far; return whether it is.

        The loss and not the IoU: on a few dozen scenes the IoU at a fixed threshold is noise between epochs. It once
        chose epoch 4 of 10 by 0.002, while the loss went on falling from 0.411 to 0.389 (docs/log.md).
        """
        best = self.progress.best_loss
        if best is not None and loss >= best:
            return False
        self.progress.best_loss, self.progress.best_epoch, self.progress.best_step = loss, epoch, self.progress.step
        if self._recipe.budget.patience is not None:
            self._best = {name: tensor.detach().clone() for name, tensor in self.published_net.state_dict().items()}
        return True

    def final_net(self) -> tuple[UNet, int]:
        """Return the net to publish, on the CPU, and its step: the best one with early stopping, else the last."""
        net = build_model(self._recipe.model)
        net.load_state_dict(self._best or self.published_net.state_dict(), strict=True)
        return net.eval(), self.progress.best_step if self._best else self.progress.step

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> TrainingState:
        """Return everything that a checkpoint must hold."""
        tensors = add_prefix("net", self.net.state_dict())
        tensors |= add_prefix("optimizer", optimizer_tensors(self.net, self.optimizer))
        if self.ema is not None:
            tensors |= add_prefix("average", self.ema.net.state_dict())
        return TrainingState(self.progress, tensors | add_prefix("best", self._best), self._dist.world_size)

    def load_state(self, state: TrainingState) -> None:
        """Restore a state."""
        self.progress = state.progress
        self.net.load_state_dict(select_prefix("net", state.tensors), strict=True)
        if self.ema is not None:
            self.ema.net.load_state_dict(select_prefix("average", state.tensors), strict=True)
        best = select_prefix("best", state.tensors)
        self._best = {name: tensor.to(self._device.torch) for name, tensor in best.items()}
        load_optimizer(self.net, self.optimizer, select_prefix("optimizer", state.tensors))


def describe_net(recipe: Recipe, net: UNet, *, threshold: float = 0.5) -> WeightsMeta:
    """Return the metadata of weights that follow from the recipe alone."""
    return WeightsMeta(
        architecture=recipe.model.architecture,
        bands=recipe.model.bands,
        optional_bands=recipe.optional_bands,
        widths=recipe.model.widths,
        dropout=recipe.model.dropout,
        encoder_weights=recipe.model.encoder_weights,
        total_parameters=count_parameters(net) or sum(p.numel() for p in net.parameters()),
        clip=recipe.input.clip,
        mean=recipe.input.mean,
        std=recipe.input.std,
        working_resolution_m=recipe.input.working_resolution_m,
        threshold=threshold,
        tta_flip=recipe.tta_flip,
        chip_size=recipe.data.chip_size,
    )


def _build_optimizer(net: UNet, optimizer: Optimizer, *, fused: bool) -> torch.optim.Optimizer:
    """Return the optimizer with its parameters in one or two groups, each with the factor of its learning rate."""
    encoder = encoder_parameters(net) if optimizer.encoder_lr_factor != 1.0 else []
    slow = {id(parameter) for parameter in encoder}
    groups: list[dict[str, Any]] = [{"params": [p for p in net.parameters() if id(p) not in slow], "lr_factor": 1.0}]
    if encoder:
        groups.append({"params": encoder, "lr_factor": optimizer.encoder_lr_factor})
    kind = torch.optim.AdamW if optimizer.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=optimizer.lr, weight_decay=optimizer.weight_decay, fused=fused or None)
