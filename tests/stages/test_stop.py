"""A prediction that is asked to stop."""

import signal

import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_prediction_that_is_asked_to_stop_keeps_what_it_has(number: signal.Signals):
    """The request is looked at between two scenes (`cloudseg.stages.predict`)."""
    from cloudseg.errors import Interrupted
    from cloudseg.stages.predict import _leave_if_asked

    _leave_if_asked(None, 1, 3)
    with pytest.raises(Interrupted, match=f"{number.name} .found 1 of 3 scenes are done") as caught:
        _leave_if_asked(number.name, 1, 3)
    assert caught.value.retry_helps
