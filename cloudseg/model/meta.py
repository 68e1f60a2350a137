"""The metadata in a weights file: how to build the net, prepare its input and read its output. Read without torch."""

from collections.abc import Collection
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cloudseg import __version__
from cloudseg.bands import REFLECTANCE_SCALE
from cloudseg.errors import BadWeights
from cloudseg.model.pixels import Scaling
from cloudseg.model.safetensors_header import HeaderError, metadata_text, read_header
from cloudseg.model.shapes import receptive_radius, values_per_pixel
from cloudseg.recipe import MAX_CHANNELS, Architecture, EncoderWeights, Model, scaling_problem
from cloudseg.records import BrightnessRange

_MAX_LEVELS: Final = 8


class WeightsMeta(BaseModel):
    """Metadata stored in the weights file: how to build the net, prepare its input and read its output, and lineage."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["cloudseg-weights-1"] = "cloudseg-weights-1"
    architecture: Architecture
    bands: tuple[str, ...] = Field(min_length=1, max_length=64, description="order of the input's bands")
    optional_bands: tuple[str, ...] = Field(
        (), description="those that a scene may lack: the net then sees 0 there, as in a share of its training samples"
    )
    widths: tuple[int, ...] = Field(min_length=1, max_length=_MAX_LEVELS)
    dropout: float = Field(ge=0, lt=1)
    encoder_weights: EncoderWeights | None = Field(None, description="what the encoder was initialized with")
    total_parameters: int = Field(ge=1, description="trainable ones")
    scale: float = Field(1 / REFLECTANCE_SCALE, gt=0, description="reflectance = digital number x scale + offset")
    offset: float = 0.0
    clip: float = Field(gt=0, description="highest reflectance that the net sees")
    mean: tuple[float, ...] = Field(description="reflectance; one for all bands or one per band")
    std: tuple[float, ...]
    working_resolution_m: float | None = Field(gt=0, description="finer scenes are downsampled to about this")
    threshold: float = Field(
        ge=0, le=1, description="cloud where probability >= threshold; chosen on validation places"
    )
    tta_flip: bool = Field(description="the probability is averaged over a mirrored copy")
    chip_size: int = Field(ge=1, description="side of the chips that it was trained on, working pixels")
    snapshot_id: str | None = None
    run_id: str | None = None
    parent_weights_id: str | None = None
    recipe_name: str | None = None
    recipe_hash: str | None = None
    seed: int | None = None
    steps: int | None = Field(None, description="optimizer steps behind these parameters")
    sources: tuple[str, ...] = Field((), description="where the labels come from")
    metrics: dict[str, Any] = Field(default_factory=dict, description="on the validation places")
    brightness: BrightnessRange | None = Field(
        None, description="range of the training scenes; None: too few of them, or weights of an earlier release"
    )
    code_version: str = __version__

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        """Accept weights that were published when `tta_flip` was still called `flip_at_prediction`."""
        if isinstance(values, dict) and "flip_at_prediction" in values and "tta_flip" not in values:
            values = {**values, "tta_flip": values["flip_at_prediction"]}
            del values["flip_at_prediction"]
        return values

    @model_validator(mode="after")
    def _is_sane(self) -> "WeightsMeta":
        if any(not 1 <= width <= MAX_CHANNELS for width in self.widths):
            raise ValueError(f"widths {self.widths} are not between 1 and {MAX_CHANNELS}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, len(self.bands)):
                raise ValueError(f"{name} has {len(values)} values for {len(self.bands)} bands")
        if problem := scaling_problem(self.mean, self.std):
            raise ValueError(problem)
        if unknown := [band for band in self.optional_bands if band not in self.bands]:
            raise ValueError(f"optional_bands names {', '.join(unknown)}, which is none of the bands")
        if not self.required_bands:
            raise ValueError("every band is optional: then nothing says where a pixel was observed")
        try:
            _ = self.model
        except ValidationError as error:  # no recipe can define this net
            raise ValueError(_describe_errors(error)) from error
        return self

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave optional bands out where there are none: exports of weights of earlier releases keep their bytes."""
        values: dict[str, Any] = write(self)
        if not self.optional_bands:
            del values["optional_bands"]
        return values

    @property
    def required_bands(self) -> tuple[str, ...]:
        """Bands that a scene must have, in the order of the input's bands."""
        return tuple(band for band in self.bands if band not in self.optional_bands)

    def bands_to_read(self, bands: Collection[str]) -> tuple[str, ...]:
        """Return what is read of pixels with these bands: all required ones, and the optional ones that are there."""
        return tuple(band for band in self.bands if band in bands or band not in self.optional_bands)

    @property
    def model(self) -> Model:
        """The net as a recipe describes it."""
        return Model(architecture=self.architecture, bands=self.bands, widths=self.widths, dropout=self.dropout)

    @property
    def scaling(self) -> Scaling:
        """The parameters of the preprocessing."""
        return Scaling(self.clip, self.mean, self.std)

    @property
    def multiple(self) -> int:
        """Height and width of the net's input are multiples of this, and so are the offsets of windows in a scene."""
        return self.model.multiple

    @property
    def receptive_radius(self) -> int:
        """Pixels on each side that can change an output pixel: the overlap that windows of a scene need."""
        return receptive_radius(self.model)

    @property
    def values_per_pixel(self) -> int:
        """Values that a forward pass holds at once for each pixel of its input: limits the size of a window."""
        return values_per_pixel(self.model)


def read_meta(header: dict[str, Any]) -> WeightsMeta:
    """Return the metadata in the header of a weights file (`read_weights_header`).

    Raises:
        BadWeights: there is none, or it describes no net that can be built.
    """
    try:
        return WeightsMeta.model_validate_json(metadata_text(header))
    except HeaderError as error:
        raise bad_weights(error.what, found=error.found, expected=error.expected) from error
    except ValidationError as error:
        raise bad_weights("the metadata is unusable", found=_describe_errors(error)) from error


def read_weights_header(data: bytes) -> dict[str, Any]:
    """Return the header of a weights file, its size and depth bounded; the file may be hostile.

    Raises:
        BadWeights: it is not a safetensors file.
    """
    try:
        return read_header(data)
    except HeaderError as error:
        raise bad_weights(error.what, found=error.found, expected=error.expected) from error


def bad_weights(what: str, *, found: object = None, expected: object = None) -> BadWeights:
    """Return the error about a weights file."""
    next_step = "Use a file written by `cloudseg train` or `cloudseg model import`."
    return BadWeights(what, subject="weights file", found=found, expected=expected, next_step=next_step)


def _describe_errors(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'metadata'}: {e['msg']}" for e in error.errors()[:5])
