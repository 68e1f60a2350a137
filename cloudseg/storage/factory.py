"""Open the store that a URL names."""

from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from cloudseg.errors import SettingsError
from cloudseg.storage.local import LocalStore
from cloudseg.storage.protocol import S3Options, Store


def open_store(url: str, s3: S3Options | None = None) -> Store:
    """Open the store of a directory (created if it is missing), a `file://` URL or `s3://bucket/prefix`.

    No request is sent to a server yet.

    Args:
        url: `CLOUDSEG_STORE_URL`.
        s3: how S3 is reached; None: the defaults.

    Raises:
        SettingsError: the scheme is unknown, or boto3 is not installed.
        StoreUnreachable: the directory cannot be created.
    """
    parts = _split(url)
    if parts.scheme == "s3":
        return _open_s3(url, s3 or S3Options())
    if parts.scheme == "" or (len(parts.scheme) == 1 and url[1:3] == ":\\"):
        return LocalStore(Path(url))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalStore(Path(unquote(parts.path)))
    raise SettingsError(
        "unknown scheme of a store URL",
        subject="CLOUDSEG_STORE_URL",
        found=parts.scheme,
        expected="a folder, file:///folder or s3://bucket/prefix",
        next_step="Set CLOUDSEG_STORE_URL to a folder or a bucket.",
    )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise SettingsError(
            "not the URL of a store",
            subject="CLOUDSEG_STORE_URL",
            found=error,
            expected="a folder, file:///folder or s3://bucket/prefix",
            next_step="Set CLOUDSEG_STORE_URL to a folder or a bucket.",
        ) from error


def _open_s3(url: str, options: S3Options) -> Store:
    try:
        from cloudseg.storage.s3 import S3Store
    except ImportError as error:
        raise SettingsError(
            "boto3, which a store on S3 needs, is not installed",
            subject="CLOUDSEG_STORE_URL",
            found=error.name,
            next_step="Install the extra: pip install 'cloudseg[s3]'.",
        ) from error
    return S3Store.at(url, options)
