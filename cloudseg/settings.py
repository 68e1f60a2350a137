"""Settings of the service, read from the environment (prefix `CLOUDSEG_`).

Only `cloudseg.runtime` reads them; everything below gets explicit arguments.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
        60.0, gt=0, description="Seconds without an answer of the S3 server before a request is retried."
    )
    inbox: str | None = Field(
        None, description="Folder, or s3://bucket/prefix, that the ingest DAG watches; CLOUDSEG_HOME/inbox when unset."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Level of the log on stderr.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device for training and prediction; auto: a GPU if there is one."
    )
    threads: int = Field(0, ge=0, description="CPU threads of torch and GDAL; 0: every core that the process may use.")
    int8: Literal["auto", "off"] = Field(
        "auto",
        description="auto: predict and evaluate in int8 on CPUs with VNNI (or Arm's dot product) "
        "if the weights have an int8 file.",
    )
    decode_timeout_s: float = Field(
        60.0, gt=0, description="CPU time in seconds that decoding one untrusted scene may take."
    )
    decode_memory_mb: int = Field(
        3072, ge=256, description="Address space in MiB of the process that decodes untrusted rasters."
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
