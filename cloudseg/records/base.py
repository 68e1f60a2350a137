"""The base of all records, and objects in the store."""

from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Json = dict[str, Any]


class Record(BaseModel):
    """Frozen; unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex")

    def as_json(self) -> Json:
        """Return plain JSON types: times as ISO 8601, geometries as hexadecimal WKB."""
        return self.model_dump(mode="json")


class StoredObject(Record):
    """The location of bytes and their expected checksum."""

    key: str
    sha256: str
    size: int = Field(description="bytes")


class ListedObject(Record):
    """An entry of the store's list."""

    key: str
    size: int = Field(description="bytes")
    written_at: AwareDatetime


def utc_iso(moment: datetime) -> str:
    """Return ISO 8601 in UTC with a trailing Z, as STAC requires."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
