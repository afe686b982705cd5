"""A trainer that prints all night fills no disk."""

from __future__ import annotations

from pathlib import Path

from pipeline.launchers.log import bound


def test_head_and_tail_stay_and_the_trainer_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    with log.open("ab", buffering=0) as trainer:  # as a launcher opens it
        for number in range(5000):
            trainer.write(b"line %d\n" % number)
            bound(log, most=20_000, head=1000, tail=4000)
        trainer.write(b"the end\n")
    text = log.read_text()
    assert len(text) < 21_000 and text.startswith("line 0\n") and text.endswith("line 4999\nthe end\n")
    assert text.count("left out here") == 1 and "\0" not in text


def test_a_log_that_is_small_or_missing_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    bound(log)
    assert not log.exists()
    log.write_text("words\n")
    bound(log, most=10)
    assert log.read_text() == "words\n"
