"""Errors that cloudseg raises deliberately, with exit codes, HTTP statuses and whether a retry can help.

The tree::

    CloudsegError
    ├── InputError            an argument or a file is unusable; a retry cannot help
    │   ├── BadScene          a raster that cannot become a scene
    │   ├── BadLabel          a mask that cannot become a label of its scene
    │   ├── BadWeights        a weights file that cannot be loaded
    │   ├── LayoutUnknown     no layout recognizes these files
    │   ├── RecipeError       a recipe that cannot be read or does not fit the data
    │   ├── SettingsError     a setting is invalid or does not fit this machine
    │   └── NotInCatalog      no row has this id
    ├── DataError             the data are readable but a stage cannot work with them
    │   ├── EmptySplit        a split without chips, or with one class only
    │   ├── SnapshotChanged   stored chips do not match their manifest
    │   └── TrainingDiverged  the loss is not finite
    ├── StateError            the state of the service forbids the step
    │   ├── Interrupted       a signal stopped a training or a prediction; the same call resumes it
    │   ├── CheckpointMismatch  a checkpoint that belongs to another run, recipe or snapshot
    │   ├── PromotionRefused  the champion is not the expected one, or the verdict forbids it
    │   └── CatalogOutdated   migrations are missing
    ├── StoreError            the object store refused or failed
    │   ├── ObjectMissing
    │   ├── ObjectExists      a different object exists under a create-only key
    │   ├── ObjectCorrupt     bytes do not match their checksum
    │   ├── StoreRefused      wrong credentials, bucket or rights; a retry cannot help
    │   └── StoreUnreachable  a retry can help
    └── CatalogUnreachable    a retry can help

A message consists of what went wrong, the id, what was found, what was expected and the next step.
"""


class CloudsegError(Exception):
    """Base of all deliberate errors.

    Attributes:
        retry_helps: whether the same call may succeed later; schedulers retry it.
        exit_code: exit status of the command line.
        http_status: status of a page of the Airflow plugin.
    """

    retry_helps = False
    exit_code = 1
    http_status = 500

    def __init__(
        self,
        what: str,
        *,
        subject: str = "",
        found: object = None,
        expected: object = None,
        next_step: str = "",
    ) -> None:
        self.what = what
        self.subject = subject
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.next_step = next_step
        super().__init__(what, subject, self.found, self.expected, next_step)

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, which exceptions with keyword arguments lack by default (process pools need it)."""
        return _rebuild, (type(self), self.what, self.subject, self.found, self.expected, self.next_step)

    def __str__(self) -> str:
        """Return one line: id, what went wrong, found, expected, next step."""
        head = f"{self.subject}: {self.what}" if self.subject else self.what
        facts = [
            f"found {self.found}" if self.found is not None else "",
            f"expected {self.expected}" if self.expected is not None else "",
        ]
        middle = ", ".join(fact for fact in facts if fact)
        return head + (f" ({middle})" if middle else "") + (f". {self.next_step}" if self.next_step else "")

    def as_record(self) -> dict[str, str | None]:
        """Return the parts as a JSON-able record (quarantine rows, `--json`, task logs)."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "subject": self.subject,
            "found": self.found,
            "expected": self.expected,
            "next_step": self.next_step,
        }


def _rebuild(
    kind: type[CloudsegError], what: str, subject: str, found: str | None, expected: str | None, next_step: str
) -> CloudsegError:
    return kind(what, subject=subject, found=found, expected=expected, next_step=next_step)


class InputError(CloudsegError):
    """An argument or a file is unusable."""

    exit_code = 2
    http_status = 400


class BadScene(InputError):
    """A raster that cannot become a scene."""


class BadLabel(InputError):
    """A mask that cannot become a label of its scene."""


class BadWeights(InputError):
    """A weights file that cannot be loaded."""


class LayoutUnknown(InputError):
    """No layout recognizes these files."""


class RecipeError(InputError):
    """A recipe that cannot be read or does not fit the data."""


class SettingsError(InputError):
    """A setting is invalid or does not fit this machine."""


class NotInCatalog(InputError):
    """No row has this id."""

    http_status = 404


class DataError(CloudsegError):
    """The data are readable but a stage cannot work with them."""

    exit_code = 3


class EmptySplit(DataError):
    """A split without chips, or with one class only."""


class SnapshotChanged(DataError):
    """Stored chips do not match their manifest."""


class TrainingDiverged(DataError):
    """The loss is not finite."""


class StateError(CloudsegError):
    """The state of the service forbids the step."""

    exit_code = 4
    http_status = 409


class Interrupted(StateError):
    """A signal stopped a training or a prediction; what was done is kept and the same call resumes it."""

    retry_helps = True
    exit_code = 143


class CheckpointMismatch(StateError):
    """A checkpoint that belongs to another run, recipe or snapshot."""


class PromotionRefused(StateError):
    """The champion is not the expected one, or the verdict forbids it."""


class CatalogOutdated(StateError):
    """Migrations are missing."""


class StoreError(CloudsegError):
    """The object store refused or failed."""

    exit_code = 5


class ObjectMissing(StoreError):
    """No object under this key."""

    http_status = 404


class ObjectExists(StoreError):
    """A different object exists under a create-only key."""


class ObjectCorrupt(StoreError):
    """Bytes do not match their checksum."""


class StoreRefused(StoreError):
    """The object store refuses the request: credentials, bucket or rights are wrong."""


class StoreUnreachable(StoreError):
    """The object store does not answer, or cannot serve requests at the moment."""

    retry_helps = True
    exit_code = 6
    http_status = 503


class CatalogUnreachable(CloudsegError):
    """The database does not answer."""

    retry_helps = True
    exit_code = 6
    http_status = 503
