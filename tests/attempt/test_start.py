"""Starts that failed: what makes two of them alike."""

from __future__ import annotations

import pytest

from pipeline.attempt.start import START, FailedStart, failed_start, masked
from pipeline.health.verdict import Evidence, Verdict


def died(**detail: object) -> Verdict:
    return Verdict(
        name="crash", evidence=(failed_start({key.replace("_", " "): each for key, each in detail.items()}),)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("OSError: no file /tmp/a/7.pt", "OSError: no file /tmp/b/8.pt"),
        ("[2026-11-27 03:10:36,123] ERROR at 0x7f5a62fc", "[2026-11-28 13:11:00,001] ERROR at 0x1b3"),
        ("run 51f0cd9b3a9f4e7c gone after 3.5 s", "run ab12cd9b3a9f4e70 gone after 12 s"),
    ],
)
def test_numbers_paths_times_and_ids_do_not_make_a_difference(one: str, other: str) -> None:
    assert masked(one) == masked(other)


def test_words_and_exit_codes_make_a_difference() -> None:
    first = FailedStart.of(died(exit_code=1, last_line="KeyError: 'rate'"))
    assert first is not None and first.is_like(FailedStart.of(died(exit_code=1, last_line="KeyError: 'rate'")))
    assert not first.is_like(FailedStart.of(died(exit_code=1, last_line="KeyError: 'name'")))
    assert not first.is_like(FailedStart.of(died(exit_code=2, last_line="KeyError: 'rate'")))
    assert not first.is_like(FailedStart.of(died(signal="SIGSEGV", last_line="KeyError: 'rate'")))
    assert not first.is_like(None)


def test_only_a_crash_before_the_first_metric_is_a_failed_start() -> None:
    assert FailedStart.of(Verdict(name="healthy")) is None
    assert FailedStart.of(Verdict(name="crash", evidence=(Evidence(rule="exit"),))) is None
    assert FailedStart.of(Verdict(name="out_of_memory", evidence=(Evidence(rule=START),))) is None
    assert FailedStart.of(died(exit_code=139)).by_signal and not FailedStart.of(died(exit_code=1)).by_signal  # type: ignore[union-attr]
