"""What goes with the weights and with a mask so that a user can tell how far to trust it."""

from typing import Literal

from pydantic import Field, model_validator

from cloudseg.records.base import Json, Record

ThresholdName = Literal["careful", "balanced", "generous"]


class BrightnessRange(Record):
    """The range of brightness of the training scenes (`cloudseg.raster.brightness`)."""

    scenes: int = Field(ge=1, description="training scenes that were measured")
    percentiles: tuple[int, ...] = Field(min_length=1, max_length=99, description="which, of the pixels of a scene")
    low: tuple[float, ...] = Field(description="reflectance: 1 % quantile of each percentile over the scenes")
    high: tuple[float, ...] = Field(description="reflectance: 99 % quantile of each percentile over the scenes")

    @model_validator(mode="after")
    def _is_complete(self) -> "BrightnessRange":
        if not len(self.percentiles) == len(self.low) == len(self.high):
            raise ValueError(f"{len(self.percentiles)} percentiles, {len(self.low)} lows, {len(self.high)} highs")
        return self


class PromisedThreshold(Record):
    """A threshold with what it misses and what it flags wrongly, as means over held-out places."""

    threshold: float = Field(ge=0, le=1, description="cloud where probability >= threshold")
    missed: float = Field(description="share of the cloud of a place that is missed, measured")
    false_cloud: float = Field(description="share of the clear pixels of a place that are called cloud, measured")
    missed_at_most: float = Field(
        description="bound of the expected share of cloud that is missed at a new place: of careful the level that was "
        "asked for, of the others the level at which conformal risk control would have chosen them"
    )
    false_cloud_at_most: float = Field(description="the same for the clear pixels that are called cloud")


class Promise(Record):
    """Three thresholds of one probability layer, chosen on held-out places (`cloudseg.evaluate.risk`)."""

    evaluation_id: str
    cloudy_places: int = Field(description="held-out places with cloud, on which missed cloud was measured")
    clear_places: int = Field(description="held-out places with clear ground, on which false cloud was measured")
    level: float = Field(description="asked for: of missed cloud by careful, of false cloud by generous")
    careful: PromisedThreshold | None = None
    balanced: PromisedThreshold | None = None
    generous: PromisedThreshold | None = None
    reasons: dict[ThresholdName, str] = Field(default_factory=dict, description="why there is no such threshold")

    def sentences(self) -> dict[ThresholdName, str]:
        """Return what is promised, in words."""
        return {
            **({"careful": self._sentence(self.careful, "missed")} if self.careful else {}),
            **({"balanced": self._sentence(self.balanced, "missed")} if self.balanced else {}),
            **({"generous": self._sentence(self.generous, "false")} if self.generous else {}),
            **{name: f"none: {why}" for name, why in self.reasons.items()},
        }

    def _sentence(self, chosen: PromisedThreshold, what: Literal["missed", "false"]) -> str:
        if what == "missed":
            bound, words, places = chosen.missed_at_most, "of the cloud of a place is missed", self.cloudy_places
        else:
            bound, words, places = (
                chosen.false_cloud_at_most,
                "of the clear pixels of a place are called cloud",
                self.clear_places,
            )
        return (
            f"from probability {chosen.threshold:.3f} on: on average over places at most {100 * bound:.1f} % {words} "
            f"(conformal risk control, {places} held-out places)"
        )

    def tags(self) -> dict[str, str]:
        """Return it as tags of a file."""
        chosen = {"careful": self.careful, "generous": self.generous}
        thresholds = {
            f"CLOUDSEG_THRESHOLD_{name.upper()}": repr(one.threshold) for name, one in chosen.items() if one is not None
        }
        return thresholds | {f"CLOUDSEG_PROMISE_{name.upper()}": words for name, words in self.sentences().items()}

    def properties(self) -> Json:
        """Return it as the property `cloudseg:thresholds` of a STAC item."""
        names: tuple[ThresholdName, ...] = ("careful", "balanced", "generous")
        found = {name: getattr(self, name) for name in names}
        return {
            "cloudseg:thresholds": {name: one.as_json() for name, one in found.items() if one is not None},
            "cloudseg:promise": {
                "evaluation_id": self.evaluation_id,
                "cloudy_places": self.cloudy_places,
                "clear_places": self.clear_places,
                **self.sentences(),
            },
        }
