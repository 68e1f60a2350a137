"""Errors of S3 servers and of connections to them as errors of this project: whether a retry helps, and what to do.

Messages hold the code and the message of the server, never a request, a header or a signed URL.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from cloudseg.errors import ObjectExists, ObjectMissing, StoreError, StoreRefused, StoreUnreachable

_MISSING: Final = ("NoSuchKey", "NotFound", "404")
_CONDITION_FAILED: Final = ("PreconditionFailed", "ConditionalRequestConflict", "412")
"""The second: another conditional write of the same key is in progress (AWS, "Conditional writes", 409)."""
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
"""A retry can help. The digests: bytes were damaged in transit, and the server stored nothing."""
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

_CHECK_KEYS: Final = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role in their place."
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
def translate_s3_errors(where: str, name: str) -> Iterator[None]:
    """Turn what boto3 raises into an error about an object.

    Args:
        where: the bucket, for messages.
        name: the object; empty: the error concerns the whole store.

    Raises:
        ObjectMissing: there is no such object.
        ObjectExists: the condition of a write did not hold.
        StoreRefused: the server refuses the request; a retry does not help.
        StoreUnreachable: the server does not answer; a retry can help.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, where, name) from error
    except BotoCoreError as error:
        raise _from_client(error, where, name) from error


def _from_answer(error: ClientError, where: str, name: str) -> StoreError:
    details: Mapping[str, Any] = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, message = str(details.get("Code", status)), str(details.get("Message", ""))
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
    if code in _CONDITION_FAILED:
        return ObjectExists("the object is not what the writer expected", subject=name, found=found)
    if code in _FULL or any(word in message.lower() for word in _FULL_WORDS):
        return StoreUnreachable(
            "the store has no space left",
            subject=where,
            found=found,
            next_step="Free space or raise the quota; then try again.",
        )
    if code in _LATER or status >= 500 or status == 429:
        return StoreUnreachable(
            "the store cannot serve the request at the moment",
            subject=subject,
            found=found,
            next_step="Try again in a moment; if it lasts, check the server's log and its free space.",
        )
    return _refused(code, found, where, subject)


def _refused(code: str, found: str, where: str, subject: str) -> StoreRefused:
    if code in _CREDENTIALS:
        return StoreRefused("the store rejects these credentials", subject=where, found=found, next_step=_CHECK_KEYS)
    if code in _RIGHTS:
        return StoreRefused(
            "the store denies access",
            subject=subject,
            found=found,
            next_step="Check that the credentials have the permissions listed in docs/how-to/s3.md.",
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
    return StoreRefused(
        "the store refuses the request", subject=subject, found=found, next_step="Run `cloudseg doctor`."
    )


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
        next_step="Check that it runs and that CLOUDSEG_S3_ENDPOINT is its address; then try again.",
    )
