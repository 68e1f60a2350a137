"""The training itself: one net, one optimizer, one visible loop. No store and no catalog here."""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch.nn.parallel import DistributedDataParallel

from cloudseg.dataset.chips import ChipSet
from cloudseg.errors import TrainingDiverged
from cloudseg.model.encoder import load_encoder
from cloudseg.model.nets import build_model
from cloudseg.model.predictor import Predictor
from cloudseg.model.unet import UNet, count_parameters
from cloudseg.model.weights import LoadedModel, WeightsMeta
from cloudseg.recipe import Recipe
from cloudseg.records import Chip, Run
from cloudseg.train.average import EMA
from cloudseg.train.batch import Batch, Batches
from cloudseg.train.checkpoint import Progress, State, Tensors, load_optimizer, named, optimizer_tensors, under
from cloudseg.train.group import Group
from cloudseg.train.loss import masked_bce
from cloudseg.train.schedule import learning_rate
from cloudseg.train.validate import Tally, tally

_MIN_VALIDATION_CHIPS = 16


@dataclass(frozen=True)
class Setting:
    """What a training works with; it does not change while it runs."""

    run: Run
    recipe: Recipe
    chip_set: ChipSet
    train_chips: list[Chip]
    validation_chips: list[Chip]
    group: Group
    warm: Tensors | None = None
    """Parameters of the parent weights."""


class Trainer:
    """The state of a training and the step that changes it. The same setting and step give the same numbers."""

    def __init__(self, setting: Setting, progress: Progress) -> None:
        recipe, group = setting.recipe, setting.group
        self.setting, self.progress, self._recipe = setting, progress, recipe
        self._device = group.device
        torch.manual_seed(recipe.seed)
        net = build_model(recipe.model)
        if setting.warm is not None:
            net.load_state_dict(setting.warm, strict=True)
        elif recipe.model.encoder_weights is not None:
            load_encoder(net, recipe.model.bands)
        self.net: UNet = net.to(self._device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = EMA(self.net, recipe.ema_decay) if recipe.ema_decay else None
        self.optimizer = _build_optimizer(self.net, recipe)
        self._best: Tensors = {}
        # Each process normalises by its own batch; the running statistics are averaged after the step
        # (Group.average_buffers).
        self._module = DistributedDataParallel(self.net, broadcast_buffers=False) if group.world > 1 else self.net
        self.batches = Batches(setting.chip_set, setting.train_chips, recipe, rank=group.rank, world=group.world)

    def take_step(self, batch: Batch) -> float:
        """Do one step; return the mean loss of all processes. Raises TrainingDiverged where it is not finite."""
        step, recipe = self.progress.step, self._recipe
        self._prepare(step)
        with self._device.autocast():
            logits = self._module(batch.x.to(self._device.torch, memory_format=torch.channels_last))
        loss = masked_bce(logits[:, 0], batch.label.to(self._device.torch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.optimizer.clip_norm)
        value = float(self.setting.group.sum(loss.detach().double().reshape(1).cpu())[0]) / self.setting.group.world
        if not math.isfinite(value):
            raise TrainingDiverged(
                "the loss is not finite",
                subject=self.setting.run.run_id,
                found=f"{value} at step {step}",
                expected="a number",
                next_step="Lower optimizer.lr or set optimizer.clip_norm in the recipe.",
            )
        self.optimizer.step()
        self.setting.group.average_buffers(self.net)
        if self.average is not None:
            self.average.update(self.net, step)
        self.progress.step += 1
        self.progress.loss_sum += value
        self.progress.loss_count += 1
        return value

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: as scheduled, lower all along where the net began warm."""
        optimizer = self._recipe.optimizer
        factor = 1.0 if self.setting.warm is None else optimizer.warm_lr_factor
        return factor * learning_rate(step, self.progress.total_steps, optimizer)

    def _prepare(self, step: int) -> None:
        """Set what depends on the step alone: learning rate and, for Dropout, the random state of this process."""
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        digest = hashlib.sha256(f"{self._recipe.seed}:{step}:{self.setting.group.rank}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "big"))

    # --- validation ---------------------------------------------------------------------------------------------------

    @property
    def published_net(self) -> UNet:
        """What would be published now: the average where the recipe has one."""
        return self.average.net if self.average is not None else self.net

    def predictor(self, net: UNet | None = None) -> Predictor:
        """Return the common forward pass of a net (by default the published one)."""
        chosen = net if net is not None else self.published_net
        return Predictor(LoadedModel(chosen, describe_net(self._recipe, chosen)), self._device)

    @property
    def validation_part(self) -> int:
        """Validation chips that the end of an epoch looks at: at most a quarter of the epoch's training chips.

        Watching stays cheap however large the snapshot is. Chips are in the order of their ids, which are hashes, so
        any part of them is a fair draw.
        """
        seen = self.progress.epoch_steps * self._recipe.budget.batch_size * self.setting.group.world
        return min(len(self.setting.validation_chips), max(_MIN_VALIDATION_CHIPS, seen // 4))

    def validate(self) -> Tally:
        """Count over the part of the validation chips that the end of an epoch looks at."""
        return self.count(self.predictor(), self.setting.validation_chips[: self.validation_part])

    def count(self, predictor: Predictor, chips: list[Chip]) -> Tally:
        """Count over some chips; all processes call it together."""
        size = self._recipe.budget.batch_size
        return tally(predictor, self.setting.chip_set, chips, batch_size=size, group=self.setting.group)

    def keep_if_best(self, loss: float, epoch: int) -> bool:
        """Remember the published net where its validation loss is the lowest so far; return whether it is.

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
        """Return the net to publish, on the CPU, and its step.

        The best one where the recipe stops early, else the last.
        """
        net = build_model(self._recipe.model)
        net.load_state_dict(self._best or self.published_net.state_dict(), strict=True)
        return net.eval(), self.progress.best_step if self._best else self.progress.step

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return everything that a checkpoint must hold."""
        tensors = named("net", self.net.state_dict()) | named("optimizer", optimizer_tensors(self.net, self.optimizer))
        if self.average is not None:
            tensors |= named("average", self.average.net.state_dict())
        return State(self.progress, tensors | named("best", self._best), self.setting.group.world)

    def load(self, state: State) -> None:
        """Go back to a state."""
        self.progress = state.progress
        self.net.load_state_dict(under("net", state.tensors), strict=True)
        if self.average is not None:
            self.average.net.load_state_dict(under("average", state.tensors), strict=True)
        self._best = {name: tensor.to(self._device.torch) for name, tensor in under("best", state.tensors).items()}
        load_optimizer(self.net, self.optimizer, under("optimizer", state.tensors))


def describe_net(recipe: Recipe, net: UNet, *, threshold: float = 0.5) -> WeightsMeta:
    """Return the metadata that follow from the recipe alone."""
    return WeightsMeta(
        architecture=recipe.model.architecture,
        bands=recipe.model.bands,
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


def _build_optimizer(net: UNet, recipe: Recipe) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer.name == "adamw" else torch.optim.Adam
    return kind(net.parameters(), lr=recipe.optimizer.lr, weight_decay=recipe.optimizer.weight_decay)
