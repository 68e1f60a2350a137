"""Pauses between attempts: random, longer and longer, and bounded."""

from cloudseg.backoff import pauses


def test_one_pause_fewer_than_attempts_and_none_at_the_end() -> None:
    found = list(pauses(attempts=4))
    assert found[-1] is None
    assert all(isinstance(pause, float) for pause in found[:-1])
    assert len(found) == 4
    assert list(pauses(attempts=1)) == [None]


def test_no_attempt_after_the_time_is_over() -> None:
    assert list(pauses(within_s=0)) == [None]


def test_pauses_stay_within_a_doubling_span_and_below_the_longest() -> None:
    runs = [list(pauses(attempts=8, longest_s=3.0))[:-1] for _ in range(200)]
    spans = [0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    for attempt, span in enumerate(spans):
        drawn = [run[attempt] or 0.0 for run in runs]
        assert 0 <= min(drawn) < span / 4
        assert span * 3 / 4 < max(drawn) <= span
