"""Recipes: all parameters of a training, read from a TOML file.

The hash of a recipe is stored in the run's row, in the metadata of the weights and in the tags of masks. The package
ships recipes in `cloudseg/recipes/`; the path of a `.toml` file can be used wherever a name can.
"""

import tomllib
import warnings
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from cloudseg.bands import BAND_NAMES, REFLECTANCE_SCALE, RGB
from cloudseg.errors import RecipeError
from cloudseg.keys import canonical_json, sha256_of

Architecture = Literal["SimpleUNet", "SimpleUNetV2", "EfficientUNet"]
EncoderWeights = Literal["imagenet"]
_LARGEST_FLOAT32: Final = 3.4028235e38
_SMALLEST_FLOAT32: Final = 1.1754944e-38
"""The smallest normal number (IEEE 754): smaller ones are 0 where the processor flushes them."""
MAX_CHANNELS: Final = 4096
"""Of a level: a convolution of so many has 150 million parameters."""
EFFICIENT_LEVELS: Final = 4
"""Maximum number of decoder levels of EfficientUNet; the encoder halves the resolution so many times."""


_BRIGHTEST: Final = 65_535 / REFLECTANCE_SCALE
"""Highest reflectance that a canonical scene can hold."""


def scaling_problem(mean: tuple[float, ...], std: tuple[float, ...]) -> str | None:
    """Return why `(reflectance - mean) / std` cannot be computed in float32, None if it can for every reflectance."""
    for name, values in (("mean", mean), ("std", std)):
        if any(abs(value) > _LARGEST_FLOAT32 for value in values):
            return f"{name} holds a value that float32 cannot represent"
    if any(value <= 0 or value < _SMALLEST_FLOAT32 for value in std):
        return f"std holds a value that is not above 0 in float32 ({_SMALLEST_FLOAT32:g})"
    farthest = max(_BRIGHTEST + abs(value) for value in mean)
    if farthest / min(std) > _LARGEST_FLOAT32:
        return "mean and std make infinite values of possible reflectances"
    return None


class _Part(BaseModel):
    # NaN has no canonical JSON, so a recipe with one could not be hashed.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Part):
    """The architecture and its bands."""

    architecture: Architecture = Field("SimpleUNet", description="class of the net")
    encoder_weights: EncoderWeights | None = Field(
        None, description="pretrained weights of the encoder of EfficientUNet; not used if the run starts warm"
    )
    bands: tuple[str, ...] = Field(
        RGB,
        min_length=1,
        description="names of `cloudseg.bands`, in the order of the net's input channels",
    )
    widths: tuple[Annotated[int, Field(ge=1, le=MAX_CHANNELS)], ...] = Field(
        (64, 128, 256),
        min_length=1,
        max_length=8,
        description="channels of each level; EfficientUNet: of the decoder, at most 4 levels",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout2d after each double convolution")

    @field_validator("bands")
    @classmethod
    def _are_bands(cls, bands: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [band for band in bands if band not in BAND_NAMES]:
            raise ValueError(f"{', '.join(unknown)}: unknown band; supported are {', '.join(BAND_NAMES)}")
        if len(set(bands)) != len(bands):
            raise ValueError("a band is named twice")
        return bands

    @property
    def multiple(self) -> int:
        """Number that height and width of the net's input must be multiples of.

        Every level but the first halves the resolution, in EfficientUNet the first too.
        """
        return 1 << (len(self.widths) - (self.architecture != "EfficientUNet"))

    @model_validator(mode="after")
    def _is_a_net(self) -> "Model":
        if self.architecture == "EfficientUNet" and len(self.widths) > EFFICIENT_LEVELS:
            raise ValueError(f"EfficientUNet has at most {EFFICIENT_LEVELS} levels, widths name {len(self.widths)}")
        if self.encoder_weights is not None and self.architecture != "EfficientUNet":
            raise ValueError(f"encoder_weights {self.encoder_weights} fit EfficientUNet only, not {self.architecture}")
        if self.encoder_weights is not None and not set(RGB) <= set(self.bands):
            raise ValueError(f"encoder_weights {self.encoder_weights} need the bands {', '.join(RGB)}")
        return self


class Input(_Part):
    """Preprocessing: `x = (min(reflectance, clip) - mean) / std` per band, 0 where nothing was observed."""

    clip: float = Field(1.0, gt=0, description="reflectance is clipped to this maximum")
    mean: tuple[float, ...] = Field((0.0,), description="reflectance; one value for all bands, or one per band")
    std: tuple[PositiveFloat, ...] = Field((1.0,), description="one value for all bands, or one per band")
    working_resolution_m: float | None = Field(
        None,
        gt=0,
        description="finer scenes are downsampled (mean) by a whole factor to about this pixel size, at most an eighth "
        "coarser",
    )


class Data(_Part):
    """Chips of a training."""

    chip_size: int = Field(384, ge=32, le=2048, description="pixels per side in the snapshot")
    crop_size: int | None = Field(
        None, ge=16, description="pixels per side of a random crop for a training step; unset: the whole chip"
    )
    max_chips: int | None = Field(None, ge=1, description="train on this many chips, chosen by the seed")
    held_out_sources: tuple[str, ...] = Field(
        (),
        description="label sources that are never trained on: their scenes are held out, or left out where their place "
        "is trained on",
    )
    balance: bool = Field(False, description="balanced sampling: draw clear, mixed and overcast chips equally often")


class Optimizer(_Part):
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019)."""

    name: Literal["adam", "adamw"] = Field("adam", description="which of the two")
    lr: float = Field(1e-3, gt=0, le=_LARGEST_FLOAT32, description="highest learning rate")
    warm_lr_factor: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of lr if the run starts from the champion's parameters, which the full lr would destroy",
    )
    encoder_lr_factor: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of lr for the encoder, whose pretrained parameters the full lr would destroy; below 1 it "
        "needs encoder_weights",
    )
    weight_decay: float = Field(
        0.0, ge=0, le=_LARGEST_FLOAT32, description="decoupled from the gradient with adamw, part of it with adam"
    )
    schedule: Literal["constant", "cosine", "onecycle"] = Field(
        "constant", description="learning rate schedule over all steps"
    )
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="of all steps, for cosine and onecycle")
    clip_norm: float | None = Field(
        None, gt=0, le=_LARGEST_FLOAT32, description="gradients are clipped to this norm (L2 over all parameters)"
    )


_Zoom = Annotated[float, Field(ge=0.01, le=100)]


class Augment(_Part):
    """Augmentation, in training only; off by default. Everything is drawn once for a chip, not for a pixel."""

    flip: bool = Field(False, description="flip rows and columns, each with probability 0.5")
    rotate90: bool = Field(False, description="rotate by a random multiple of 90 degrees")
    gain: float = Field(0.0, ge=0, le=100, description="factor of all bands, log-uniform in [1/(1+gain), 1+gain]")
    band_gain: float = Field(0.0, ge=0, le=100, description="the same, independently for each band")
    offset: float = Field(
        0.0,
        ge=0,
        le=1,
        description="reflectance added to all bands after the gain with probability 0.5, uniform in [0, offset]: haze, "
        "and the offset of Sentinel-2's baseline 04.00 (0.1) where nobody subtracted it",
    )
    saturate: float = Field(
        0.0, ge=0, le=1, description="probability of clipping at a random reflectance between 0.3 and clip"
    )
    sharpness: float = Field(
        0.0,
        ge=0,
        le=100,
        description="factor of the difference from the mean of the 3 x 3 pixels around, log-uniform in "
        "[1/(1+sharpness), 1+sharpness]: below 1 blurs, above 1 sharpens, as optics, resampling and JPEG do",
    )
    rectangle: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability of a rectangle of 10 to 50 % of the area with a constant random reflectance between 0 "
        "and clip in each of a random set of bands; its label is ignored only where no band is left",
    )
    drop_bands: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that the net sees 0 in every band beyond red, green and blue; above 0 it also masks "
        "scenes that lack such a band",
    )
    power: float = Field(
        0.0,
        ge=0,
        le=100,
        description="exponent of reflectance over clip, with probability 0.5, log-uniform in [1/(1+power), 1+power]: "
        "as a gamma of a display does",
    )
    gray: float = Field(
        0.0, ge=0, le=1, description="probability that red, green and blue are replaced by their mean, after the power"
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability of a rectangle of 10 to 50 % of the area with pixels and label of the next sample of "
        "the batch (Yun et al. 2019)",
    )
    scale: Annotated[float, Field(ge=0, le=100)] | tuple[_Zoom, _Zoom] = Field(
        0.0,
        description="zoom, log-uniform in [1/(1+scale), 1+scale]; or the range itself: with [0.5, 1.1] the pixel is "
        "between 2 times as large and 1.1 times as small",
    )
    interpolation: Literal["bilinear", "random"] = Field(
        "bilinear",
        description="of a zoomed chip: bilinear with antialiasing; random: that, bilinear without antialiasing or "
        "nearest neighbor, equally often",
    )

    @property
    def zooms(self) -> tuple[float, float]:
        """The smallest and largest zoom; above 1 enlarges the ground."""
        return self.scale if isinstance(self.scale, tuple) else (1 / (1 + self.scale), 1 + self.scale)

    @field_validator("scale")
    @classmethod
    def _is_a_range(cls, scale: float | tuple[float, float]) -> float | tuple[float, float]:
        if isinstance(scale, tuple) and scale[0] > scale[1]:
            raise ValueError(f"the smallest zoom {scale[0]:g} is above the largest {scale[1]:g}")
        return scale


class Budget(_Part):
    """When training ends: at the first of the limits that are set."""

    batch_size: int = Field(4, ge=1, le=65_536, description="chips or crops in a step of each process")
    epochs: int | None = Field(None, ge=1, le=10**9, description="number of epochs")
    steps: int | None = Field(None, ge=1, le=10**9, description="number of optimizer steps")
    minutes: float | None = Field(
        None,
        gt=0,
        le=525_600,
        description="wall clock of the whole training; its speed determines the steps, again after every epoch",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="early stopping: epochs without a lower validation loss before the training ends; the best epoch "
        "is published. Every epoch uses the same validation chips: all, or at least 16 and a quarter as many as it "
        "trains on",
    )
    epoch_steps: int | None = Field(
        None,
        ge=1,
        description="steps of an epoch; unset: one pass over the chips, less if the minutes allow fewer than eight",
    )
    checkpoint_every_steps: int = Field(
        100, ge=1, description="steps between checkpoints; there is one after every epoch too"
    )

    @model_validator(mode="after")
    def _ends(self) -> "Budget":
        if self.epochs is None and self.steps is None and self.minutes is None:
            raise ValueError("set epochs, steps or minutes, otherwise the training never ends")
        return self


class PromotionPolicy(_Part):
    """Policy of the gate: when a challenger replaces the champion."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="one-sided, of the paired bootstrap over places")
    margin: float = Field(0.0, ge=0, le=1, description="the lower bound of the IoU difference must exceed this")
    reject_below: float = Field(-0.02, ge=-1, le=0, description="an upper bound below this rejects the challenger")
    slice_limit: float = Field(0.05, ge=0, le=1, description="largest decrease that is accepted in a slice")
    radiometry_limit: float = Field(
        0.05, ge=0, le=1, description="largest decrease that is accepted in a radiometry variant of the held-out scenes"
    )
    slice_min_scenes: int = Field(8, ge=1, description="smaller slices are reported, not compared")
    bootstrap_samples: int = Field(2000, ge=100, le=10**6, description="draws of the bootstrap")


class RetrainPolicy(_Part):
    """When a retraining is due although too few labels are new; it changes nothing in the training itself."""

    drift_psi: float | None = Field(
        None,
        gt=0,
        le=100,
        description="retrain, at most once a week, if the newest scenes or masks differ from the champion's training "
        "scenes by more than this Population Stability Index (0.25 is usual); unset: never",
    )


class Recipe(_Part):
    """A recipe."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,39}$",
        description="lower-case letters, digits, `_` and `-`; shown with runs and weights",
    )
    description: str = Field(description="one line for people")
    seed: int = Field(0, ge=0, lt=2**31, description="of initial parameters, order of chips, augmentation and dropout")
    warm_start: bool = Field(False, description="start from the champion's parameters if it has the same architecture")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 if the device supports it")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="decay of the exponential moving average (EMA) of the weights"
    )
    tta_flip: bool = Field(
        False,
        description="test-time augmentation: average the probability with that of the flipped image (twice the time)",
    )
    model: Model = Model()
    input: Input = Input()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    augment: Augment = Augment()
    budget: Budget
    promotion: PromotionPolicy = PromotionPolicy()
    retrain: RetrainPolicy = RetrainPolicy()

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        for name, values in (("mean", self.input.mean), ("std", self.input.std)):
            if len(values) not in (1, len(self.model.bands)):
                raise ValueError(f"input.{name} has {len(values)} values for {len(self.model.bands)} bands")
        if self.optimizer.encoder_lr_factor != 1.0 and self.model.encoder_weights is None:
            raise ValueError("optimizer.encoder_lr_factor is of pretrained parameters: set model.encoder_weights")
        if problem := scaling_problem(self.input.mean, self.input.std):
            raise ValueError(f"input: {problem}")
        if self.data.crop_size is not None and self.data.crop_size > self.data.chip_size:
            raise ValueError(
                f"data.crop_size {self.data.crop_size} is larger than data.chip_size {self.data.chip_size}"
            )
        multiple, levels = self.model.multiple, len(self.model.widths)
        for name, size in (("chip_size", self.data.chip_size), ("crop_size", self.data.crop_size)):
            if size is not None and size % multiple:
                raise ValueError(
                    f"data.{name} {size} is not a multiple of {multiple}, "
                    f"which {self.model.architecture} with {levels} levels needs"
                )
        return self

    @model_validator(mode="after")
    def _augments(self) -> "Recipe":
        bands = set(self.model.bands)
        if self.augment.drop_bands and not (bands & set(RGB) and bands - set(RGB)):
            raise ValueError("augment.drop_bands needs a band beyond red, green and blue, and one of these three")
        window = round((self.data.crop_size or self.data.chip_size) / self.augment.zooms[0])
        # A spread was always cut off at the whole chip; a range says what is wanted.
        if isinstance(self.augment.scale, tuple) and window > self.data.chip_size:
            raise ValueError(
                f"augment.scale {self.augment.scale[0]:g} needs windows of {window} pixels, data.chip_size is "
                f"{self.data.chip_size}: lower data.crop_size"
            )
        return self

    @property
    def optional_bands(self) -> tuple[str, ...]:
        """Bands that a scene may lack: those that the training sets to 0 in a share of its samples."""
        return tuple(band for band in self.model.bands if band not in RGB) if self.augment.drop_bands else ()

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the canonical JSON of every value, defaults included, except `_ADDED_VALUES` at their default.

        When to retrain is no part of it.
        """
        values = self.model_dump(mode="json", exclude={"retrain"})
        for (part, name), neutral in _ADDED_VALUES.items():
            if values[part][name] == neutral:
                del values[part][name]
        return sha256_of(canonical_json(values))

    def with_minutes(self, minutes: float | None) -> "Recipe":
        """Return the recipe with another time budget; None changes nothing.

        Raises:
            RecipeError: `minutes` is not above 0.
        """
        if minutes is None:
            return self
        values = self.model_dump()
        return recipe_from({**values, "budget": {**values["budget"], "minutes": minutes}}, subject=self.name)


def recipe_names() -> list[str]:
    """List the recipes that ship with the package."""
    return sorted(
        Path(entry.name).stem for entry in resources.files("cloudseg.recipes").iterdir() if entry.name.endswith(".toml")
    )


_RENAMED_RECIPES: Final = {"seed": "baseline"}
_RENAMED_VALUES: Final = {"average_decay": "ema_decay", "flip_at_prediction": "tta_flip"}
_REMOVED_VALUES: Final = {
    ("loss", "bce"): 1.0,
    ("loss", "soft_jaccard"): 0.0,
    ("loss", "label_smoothing"): 0.0,
    ("augment", "gamma"): 0.0,
    ("augment", "noise"): 0.0,
}
"""Removed values that did not help (docs/log.md), each with the setting that had no effect: it is still accepted."""

_ADDED_VALUES: Final = {
    ("augment", "offset"): 0.0,
    ("augment", "sharpness"): 0.0,
    ("augment", "rectangle"): 0.0,
    ("augment", "power"): 0.0,
    ("augment", "gray"): 0.0,
    ("augment", "cutmix"): 0.0,
    ("augment", "drop_bands"): 0.0,
    ("augment", "interpolation"): "bilinear",
    ("data", "held_out_sources"): [],
    ("optimizer", "encoder_lr_factor"): 1.0,
    ("promotion", "radiometry_limit"): 0.05,
}
"""Values that a release added, each with the default that trains as before: a recipe without them keeps its hash."""


def current_name(name: str) -> str:
    """Return today's name of a recipe in a run row; a name that was never changed is returned as it is."""
    return _RENAMED_RECIPES.get(name, name)


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: name of a recipe that ships with the package (`nightly`), or path of a TOML file (`./mine.toml`).

    Raises:
        RecipeError: the name is unknown, the file cannot be read, or its TOML or its values are invalid.
    """
    if name := _RENAMED_RECIPES.get(name_or_path):
        _warn_renamed(f"recipe '{name_or_path}'", f"'{name}'")
        name_or_path = name
    try:
        if name_or_path.endswith(".toml"):
            text = Path(name_or_path).read_text(encoding="utf-8")
        else:
            if name_or_path not in recipe_names():
                raise RecipeError(
                    "no such recipe",
                    subject=name_or_path,
                    expected=", ".join(recipe_names()),
                    next_step="Use one of these or the path of a .toml file.",
                )
            text = (resources.files("cloudseg.recipes") / f"{name_or_path}.toml").read_text(encoding="utf-8")
        return recipe_from(tomllib.loads(text), subject=name_or_path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError("the recipe cannot be read", subject=name_or_path, found=error) from error
    except RecursionError as error:
        raise RecipeError(
            "the recipe cannot be read",
            subject=name_or_path,
            found="brackets inside brackets, too many of them",
            next_step="docs/reference/recipes.md lists every value.",
        ) from error


def recipe_from(values: dict[str, Any], *, subject: str = "recipe", stored: bool = False) -> Recipe:
    """Build a recipe from plain values: a TOML document, or the recipe of a run row, which may be older than this code.

    Args:
        values: as in a TOML file.
        subject: names the recipe in errors.
        stored: whether the values are from a run row: old names cause no warning there.

    Raises:
        RecipeError: a value is unknown or invalid.
    """
    try:
        return Recipe.model_validate(_updated(values, warn=not stored))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise RecipeError(
            "the recipe has invalid values",
            subject=subject,
            found=problems,
            next_step="docs/reference/recipes.md lists every value.",
        ) from error


def is_same_training(stored: dict[str, Any], recipe: Recipe, *, ignore_minutes: bool = False) -> bool:
    """Return whether the recipe of a run row trains the same as this recipe.

    Compared by value under today's names, because a hash changes with every value that a release renames or removes.
    Name, description and when to retrain do not matter to a training.

    Args:
        stored: the recipe of a run row, which may be older than this code; one that cannot be read is another one.
        recipe: what it is compared with.
        ignore_minutes: whether recipes that differ only in their time budget are the same.
    """
    try:
        earlier = recipe_from(stored, stored=True)
    except RecipeError:  # it has a value that this release no longer supports
        return False
    ignored: dict[str, Any] = {"name": True, "description": True, "retrain": True}
    if ignore_minutes:
        ignored["budget"] = {"minutes"}
    return earlier.model_dump(exclude=ignored) == recipe.model_dump(exclude=ignored)


def _updated(values: dict[str, Any], *, warn: bool) -> dict[str, Any]:
    """Return the values under current names, without removed ones that had no effect."""
    updated = dict(values)
    for old, new in _RENAMED_VALUES.items():
        if old in updated and new not in updated:
            if warn:
                _warn_renamed(f"recipe value '{old}'", f"'{new}'")
            updated[new] = updated.pop(old)
    for (part, name), neutral in _REMOVED_VALUES.items():
        if isinstance(updated.get(part), dict) and updated[part].get(name) == neutral:
            updated[part] = {key: value for key, value in updated[part].items() if key != name}
    if updated.get("loss") == {}:
        del updated["loss"]
    return updated


def _warn_renamed(old: str, new: str) -> None:
    warnings.warn(
        f"{old} is now called {new}; the old name will be removed in release 0.3", FutureWarning, stacklevel=3
    )
