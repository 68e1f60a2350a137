"""What an S3 server or the way to it can answer, as errors of this project: whether a retry can help, and what to do.

Nothing secret is passed on: code and message of the server, never a request, a header or a signed URL.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from cloudseg.errors import ObjectExists, ObjectMissing, StoreError, StoreRefused, StoreUnreachable

_MISSING: Final = ("NoSuchKey", "NotFound", "404")
_TAKEN: Final = ("PreconditionFailed", "ConditionalRequestConflict", "412")
"""The second: another conditional writer of the same key is at it just now (AWS, "Conditional writes", 409)."""
_LATER: Final = (
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "OperationAborted",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
)
"""A retry can help. The digests: bytes were damaged on the way, and the server kept nothing."""
_FULL: Final = ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "StorageFull", "507")
_FULL_WORDS: Final = ("no writable volumes", "no space left", "no free volume", "quota", "not enough data nodes")
_CREDENTIALS: Final = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidSecurity",
)
_RIGHTS: Final = ("AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403", "KMS.DisabledException")
_PLACE: Final = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")
_LONGEST: Final = 300

_CHECK_KEYS: Final = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role that stands for them."
_NO_HELP: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.UnauthorizedSSOTokenError,
    boto.SSOTokenLoadError,
    boto.ParamValidationError,
    boto.InvalidRegionError,
    boto.InvalidConfigError,
)


@contextmanager
def translated(where: str, name: str) -> Iterator[None]:
    """Turn what boto3 raises into an error about the object `name` (empty: the whole store).

    Raises ObjectMissing, ObjectExists (a condition did not hold), StoreRefused, StoreUnreachable.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, where, name) from error
    except BotoCoreError as error:
        raise _from_client(error, where, name) from error


def _from_answer(error: ClientError, where: str, name: str) -> StoreError:
    said: Mapping[str, Any] = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, message = str(said.get("Code", status)), str(said.get("Message", ""))
    found = f"{code}: {message}"[:_LONGEST] if message else code
    subject = name or where
    if code == "NoSuchBucket":
        return StoreRefused(
            "there is no such bucket",
            subject=where,
            found=found,
            next_step="Create the bucket, or correct CLOUDSEG_STORE_URL.",
        )
    if code in _MISSING:
        return ObjectMissing(
            "no object under this key", subject=name, found=f"nothing in {where}", next_step="Run `cloudseg doctor`."
        )
    if code in _TAKEN:
        return ObjectExists("the object is not what the writer expected", subject=name, found=found)
    if code in _FULL or any(word in message.lower() for word in _FULL_WORDS):
        return StoreUnreachable(
            "the store has no room",
            subject=where,
            found=found,
            next_step="Make room or raise its quota; then try again.",
        )
    if code in _LATER or status >= 500 or status == 429:
        return StoreUnreachable(
            "the store cannot serve this just now",
            subject=subject,
            found=found,
            next_step="Try again in a moment; if it lasts, look at the server's log and at the room that it has left.",
        )
    return _refused(code, found, where, subject)


def _refused(code: str, found: str, where: str, subject: str) -> StoreRefused:
    if code in _CREDENTIALS:
        return StoreRefused(
            "the store does not know these credentials", subject=where, found=found, next_step=_CHECK_KEYS
        )
    if code in _RIGHTS:
        return StoreRefused(
            "the store forbids this",
            subject=subject,
            found=found,
            next_step="Check the credentials, and that they have the rights which docs/how-to/s3.md lists.",
        )
    if code in _PLACE:
        return StoreRefused(
            "the bucket is in another region",
            subject=where,
            found=found,
            next_step="Set CLOUDSEG_S3_REGION to its region.",
        )
    if code == "RequestTimeTooSkewed":
        return StoreRefused(
            "this machine's clock is wrong", subject=where, found=found, next_step="Set the clock (NTP)."
        )
    return StoreRefused("the store refuses this", subject=subject, found=found, next_step="Run `cloudseg doctor`.")


def _from_client(error: BotoCoreError, where: str, name: str) -> StoreError:
    found = f"{type(error).__name__}: {error}"[:_LONGEST]
    if isinstance(error, _NO_HELP):
        return StoreRefused(
            "no usable credentials or settings for the store", subject=where, found=found, next_step=_CHECK_KEYS
        )
    if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreRefused(
            "the store's certificate is not trusted",
            subject=where,
            found=found,
            next_step="Set CLOUDSEG_S3_CA_BUNDLE to the certificates of its authority.",
        )
    return StoreUnreachable(
        "the store does not answer",
        subject=where,
        found=found,
        next_step="Check that it runs and CLOUDSEG_S3_ENDPOINT names it; then try again.",
    )
