"""Error classes: message, record, exit code and HTTP status."""

import copy
import pickle
import re

import pytest

from cloudseg import errors
from cloudseg.errors import CloudsegError
from cloudseg.ingest.stac_source.http_client import Unreachable
from cloudseg.serve.context import Busy


def subclasses(kind: type[CloudsegError]) -> set[type[CloudsegError]]:
    return {kind, *(below for child in kind.__subclasses__() for below in subclasses(child))}


EVERY = sorted(subclasses(CloudsegError), key=lambda kind: kind.__name__)


def test_the_message_has_all_its_parts():
    error = errors.BadScene("has too few bands", subject="sc-1", found=3, expected=4, next_step="Give --bands.")
    assert str(error) == "sc-1: has too few bands (found 3, expected 4). Give --bands."


def test_missing_parts_are_left_out_of_the_message():
    assert str(errors.BadScene("is empty")) == "is empty"
    assert str(errors.BadScene("is empty", subject="x", found=0)) == "x: is empty (found 0)"
    assert str(errors.BadScene("is empty", expected="pixels")) == "is empty (expected pixels)"


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_can_be_pickled(kind: type[CloudsegError]):
    error = kind("what", subject="id", found=[1], expected=None, next_step="Do.")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(again) is kind
        assert again.as_record() == error.as_record()
        assert str(again) == str(error)


def test_the_record_is_json_able():
    assert errors.BadLabel("w", subject="s", found=1.5, expected={"a": 1}).as_record() == {
        "error": "BadLabel",
        "what": "w",
        "subject": "s",
        "found": "1.5",
        "expected": "{'a': 1}",
        "next_step": "",
    }


def test_the_tree_in_the_docstring_lists_every_class():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(
        kind.__name__ for kind in EVERY if kind is not CloudsegError and kind.__module__ == errors.__name__
    )


def test_only_transient_errors_are_retried():
    assert {kind.__name__ for kind in EVERY if kind.retry_helps} == {
        "StoreUnreachable",
        "CatalogUnreachable",
        "Interrupted",
        Busy.__name__,
        Unreachable.__name__,
    }


def test_error_classes_have_different_exit_codes():
    assert [
        kind.exit_code
        for kind in (CloudsegError, errors.InputError, errors.DataError, errors.StateError, errors.StoreError)
    ] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert all(400 <= kind.http_status < 600 and 0 < kind.exit_code < 256 for kind in EVERY)
    assert errors.NotInCatalog.http_status == errors.ObjectMissing.http_status == 404
