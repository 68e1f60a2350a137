"""Settings of the service, read from the environment (prefix `CLOUDSEG_`).

Only `cloudseg.runtime` reads them; everything below gets explicit arguments.
"""

import re
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_DAY_S: Final = 86_400
_MONTH_H: Final = 31 * 24
_PROTOCOL: Final = "(tcp|udp|sctp)"
# Values too: a misspelled setting of another kind is still reported.
_SERVICE_VALUES: Final = {
    r"SERVICE_HOST|PORT_\d+_(TCP|UDP|SCTP)_ADDR": r"[^/\s]+",
    r"SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)_PORT": r"\d+",
    r"PORT_\d+_(TCP|UDP|SCTP)_PROTO": _PROTOCOL,
    r"PORT(_\d+_(TCP|UDP|SCTP))?": rf"{_PROTOCOL}://[^/\s]+:\d+",
}


def is_service_link(name: str, value: str) -> bool:
    """Return whether an environment variable describes a service of the cluster instead of being a misspelled setting.

    Kubernetes sets such variables in every pod of a namespace for each of its services, under the service's name in
    capitals (kubernetes.io/docs/concepts/services-networking/service, "Environment variables"); Docker did so for
    links. Those of a service `cloudseg` or `cloudseg-api` begin like settings.
    """
    return any(
        re.fullmatch(rf"CLOUDSEG_([A-Z0-9_]+_)?({names})", name) and re.fullmatch(values, value)
        for names, values in _SERVICE_VALUES.items()
    )


class Settings(BaseSettings):
    """The settings. By default, catalog and store are a SQLite file and a folder in `home`; no server is needed."""

    # Compose files pass unset variables as empty strings.
    model_config = SettingsConfigDict(env_prefix="CLOUDSEG_", frozen=True, extra="forbid", env_ignore_empty=True)

    home: Path = Field(Path("var"), description="Folder of the embedded catalog, store and inbox.")
    catalog_url: SecretStr | None = Field(
        None,
        description="postgresql+psycopg://user:password@host/database or sqlite:////file; "
        "a SQLite file in CLOUDSEG_HOME when unset.",
    )
    store_url: str | None = Field(
        None, description="Object store: a folder, file:// URL or s3://bucket/prefix; CLOUDSEG_HOME/store when unset."
    )
    s3_endpoint: str | None = Field(
        None,
        description="http(s)://host:port of an S3 server; "
        "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL when unset, else AWS.",
    )
    s3_link_endpoint: str | None = Field(
        None,
        description="Address of the same server for the URLs of `masks --link`, where users need another one; "
        "CLOUDSEG_S3_ENDPOINT when unset.",
    )
    s3_region: str | None = Field(
        None, description="Region; that of AWS_DEFAULT_REGION or the AWS profile when unset, else us-east-1."
    )
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Whether the bucket is part of the path or of the host name of requests; "
        "auto: of the path where an endpoint is set.",
    )
    s3_ca_bundle: Path | None = Field(
        None, description="PEM file of the certificate authority of an https endpoint; AWS_CA_BUNDLE when unset."
    )
    s3_timeout_s: float = Field(
        60.0, gt=0, le=_DAY_S, description="Seconds without an answer of the S3 server before a request is retried."
    )
    public_url: str | None = Field(
        None,
        pattern=r"^(https?|s3)://[^\s?#]+$",
        description="Address under which readers see the keys of the store (`<public_url>/<key>`): a web server or a "
        "CDN. STAC items name files by it; when unset, by their path or s3:// address.",
    )
    stac_license: str = Field(
        "other",
        pattern=r"^(https?://\S+|[A-Za-z0-9.+() -]+)$",
        description="License of the published masks in STAC: an SPDX identifier such as CC-BY-4.0, or the address of "
        "its text.",
    )
    stac_provider: str = Field(
        "cloudseg",
        pattern=r"^[^\s].*$",
        description="Who publishes the masks, for STAC: a name, optionally followed by a blank and an address.",
    )
    serve_api_keys: SecretStr | None = Field(
        None,
        description="API keys of the readers of `cloudseg serve`, divided by blanks, each of at least 16 letters; "
        "everybody who reaches the address may read when unset.",
    )
    serve_metrics_key: SecretStr | None = Field(
        None,
        description="Key of at least 16 letters with which Prometheus may read /metrics of `cloudseg serve`, as a "
        "bearer token. When unset there is no such route.",
    )
    gpu_hour_price: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Price of an hour of a GPU, in any currency, for the cost of a night and of a mask; no cost is "
        "reported when unset.",
    )
    cpu_hour_price: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Price of an hour of the machine that trains without a GPU, in the same currency.",
    )
    serve_cors_origins: str = Field(
        "",
        description="Origins whose web pages may read from `cloudseg serve`, divided by blanks, such as "
        "https://maps.example.org; *: every page.",
    )
    serve_requests_per_minute: int = Field(
        6000, ge=0, description="Requests of one client to `cloudseg serve` in a minute; 0: no limit."
    )
    serve_base_tiles: str | None = Field(
        None,
        pattern=r"^https?://[^\s/;,'\"{}]+/[^\s;,'\"]*\{z\}[^\s;,'\"]*(\{x\}[^\s;,'\"]*\{y\}|\{y\}[^\s;,'\"]*\{x\})[^\s;,'\"]*$",
        description="Address of the base map's XYZ tiles of 256 pixels, with {z}, {x} and {y}. The readers' browsers "
        "ask this host themselves. When unset: the land of Natural Earth, which is part of the package.",
    )
    serve_base_attribution: str = Field(
        "", max_length=200, description="What the terms of CLOUDSEG_SERVE_BASE_TILES want on the map, as plain text."
    )
    inbox: str | None = Field(
        None, description="Folder, or s3://bucket/prefix, that the ingest DAG watches; CLOUDSEG_HOME/inbox when unset."
    )
    trusted_inboxes: str = Field(
        "*",
        description="Inboxes whose first label of a scene is accepted at once: folders or URI prefixes, divided by "
        "blanks; *: every inbox that the operator ingests from. Corrections wait for `cloudseg labels accept` anyway.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Level of the log on stderr.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device for training and prediction; auto: a GPU if there is one."
    )
    threads: int = Field(
        0, ge=0, le=1_000_000, description="CPU threads of torch and GDAL; 0: every core that the process may use."
    )
    int8: Literal["auto", "off"] = Field(
        "auto",
        description="auto: predict and evaluate in int8 on CPUs with VNNI (or Arm's dot product) "
        "if the weights have an int8 file.",
    )
    second_opinion: bool = Field(
        False,
        description="Ask ukis-csmask (pip install 'cloudseg[teacher]') in every new evaluation, too: its agreement is "
        "in the report, and never in the gate.",
    )
    threshold: float | None = Field(
        None,
        ge=0.004,
        le=1,
        description="Probability from which a pixel of a new mask is cloud; that of the model when unset. Evaluation "
        "and the gate use the model's. `predict --threshold` overrides it, as the options of the same names do the "
        "next three.",
    )
    min_area_m2: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Clouds of new masks that are smaller than this become clear."
    )
    min_hole_m2: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Clear areas of new masks that are smaller than this, and that a cloud touches, become cloud.",
    )
    buffer_m: float = Field(
        0.0, ge=0, le=20_000, description="By how many meters the clouds of new masks are widened, after that."
    )
    backfill_megapixels: int = Field(
        10_000,
        ge=0,
        le=1_000_000_000,
        description="Millions of scene pixels that the backfill masks anew in a night after a promotion; "
        "a full Sentinel-2 tile has 121. 0: the backfill is paused.",
    )
    alert_repeat_hours: float = Field(
        24.0,
        gt=0,
        le=_MONTH_H,
        description="Hours after which a message about an alert that still holds is sent again; by default it reminds "
        "once a day.",
    )
    alert_night_hours: float = Field(
        36.0,
        gt=0,
        le=_MONTH_H,
        description="Hours for which new labels may wait for a training without an alert; by default a night may be "
        "missed, not two.",
    )
    alert_mask_minutes: float = Field(
        60.0,
        gt=0,
        le=60 * _MONTH_H,
        description="Minutes for which a new scene may wait for its mask without an alert; by default ten times what "
        "ingest and prediction take when nothing else runs.",
    )
    alert_quarantine_files: int = Field(
        1, ge=1, description="Files in quarantine since a day that are an alert; by default the first one."
    )
    alert_disk_percent: float = Field(
        10.0,
        ge=0,
        lt=100,
        description="Free part of a disk in percent below which there is an alert, a critical one below half of it: by "
        "default at the 5 % that a Linux file system keeps for root, mke2fs(8).",
    )
    decode_timeout_s: float = Field(
        60.0, gt=0, le=_DAY_S, description="CPU time in seconds that decoding one untrusted scene may take."
    )
    decode_memory_mb: int = Field(
        3072, ge=256, le=1 << 30, description="Address space in MiB of the process that decodes untrusted rasters."
    )
    max_scene_pixels: int = Field(
        400_000_000,
        gt=0,
        description="Largest scene (rows x columns) accepted; a full Sentinel-2 tile has 120 560 400.",
    )
    max_file_mb: int = Field(
        16_384,
        gt=0,
        description="Largest file of an inbox, and largest scene without compression, in MiB.",
    )
    require_sandbox: bool = Field(
        False,
        description="1: ingest stops with an error if this machine does not allow every restriction "
        "of the process that decodes untrusted rasters; 0: it goes on with the others and warns.",
    )
    stac_hosts: str = Field(
        "",
        description="Hosts that `ingest stac+https://…` may contact, divided by blanks: `host` or `*.domain`; "
        "every public host when unset.",
    )
    stac_private_hosts: str = Field(
        "",
        description="Hosts of the own network, divided by blanks: `host` or `host:port`. Only these may have addresses "
        "that are not public, and plain http.",
    )
    backup_folder: Path | None = Field(
        None,
        description="Folder in which the DAG cloudseg_backup keeps a copy of each night; no backup is made when unset. "
        "It belongs on another disk than the store, and must exist.",
    )
    stac_folder: Path | None = Field(
        None,
        description="Folder of unfinished copies of STAC items, kept until the next ingest; CLOUDSEG_HOME/fetch when "
        "unset. It needs room for as many items as requests run at a time.",
    )
    stac_connections: int = Field(4, ge=1, le=64, description="Requests at a time to the servers of a STAC source.")
    stac_timeout_s: float = Field(
        60.0, gt=0, le=_DAY_S, description="Seconds without an answer before a request to a STAC source is repeated."
    )
    stac_max_item_mb: int = Field(
        4_096, gt=0, le=1 << 30, description="Largest amount that is fetched for one STAC item, in MiB."
    )
    stac_token_url: str = Field(
        "",
        description="Address that gives the token for the files of a collection, with `{collection}`; for the "
        "Planetary Computer https://planetarycomputer.microsoft.com/api/sas/v1/token/{collection}.",
    )
