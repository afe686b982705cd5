"""After a rollback the learning rate is smaller for a while; rare rollbacks are forgiven, repeated ones are not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pipeline.attempt.file import WarmStart
from pipeline.health.monitor import judge
from pipeline.health.rule_sets import NAN
from pipeline.training import trainer as module
from pipeline.training.caution import FORGIVEN_AFTER, HELD, RETURNING, Caution
from pipeline.training.ppo import CONSECUTIVE_NONFINITE
from pipeline.training.trainer import Trainer
from tests.conftest import small_config
from tests.health.test_rules import history


def clean(caution: Caution, updates: int) -> list[float]:
    factors = []
    for _ in range(updates):
        caution.note(rolled_back=False, skipped=0)
        factors.append(caution.factor)
    return factors


def test_the_rate_is_halved_held_and_comes_back_gradually() -> None:
    caution = Caution()
    caution.note(rolled_back=True, skipped=4)
    assert clean(caution, HELD) == [0.5] * HELD
    returning = clean(caution, RETURNING)
    assert returning == sorted(returning) and max(b / a for a, b in pairwise(returning)) < 1.1
    assert returning[0] < 0.55 and returning[-1] == pytest.approx(1.0)
    assert clean(caution, 100)[-1] == 1.0


def test_each_rollback_halves_it_again_down_to_a_least_rate() -> None:
    caution, factors = Caution(), []
    for _ in range(6):
        caution.note(rolled_back=True, skipped=4)
        factors.append(caution.factor)
    assert factors == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16, 1 / 16]
    assert clean(caution, HELD + 4 * RETURNING + 1)[-1] == 1.0


def test_a_skipped_minibatch_is_no_clean_update_and_no_rollback() -> None:
    caution = Caution()
    caution.note(rolled_back=True, skipped=4)
    for _ in range(1000):
        caution.note(rolled_back=False, skipped=1)
    assert (caution.factor, caution.rollbacks) == (0.5, 1)


@pytest.mark.parametrize(
    ("every", "fails"), [(1, True), (10, True), (FORGIVEN_AFTER - 1, True), (FORGIVEN_AFTER + 1, False), (300, False)]
)
def test_rare_rollbacks_in_a_long_run_are_no_failure_and_repeated_ones_are(every: int, fails: bool) -> None:
    caution, counts = Caution(), []
    for update in range(2000):
        caution.note(rolled_back=update % every == 0, skipped=0)
        counts.append(caution.rollbacks)
    assert (judge(history(rollbacks=counts), NAN) is not None) is fails


def trainer(folder: Path, **changes: object) -> tuple[Trainer, list[dict[str, float]]]:
    reported: list[dict[str, float]] = []
    config = small_config(training__warmup_steps=0, training__cosine=False, training__episodes=10**6, **changes)
    return Trainer(config, folder, lambda metrics, step: reported.append(metrics)), reported


def test_a_trainer_goes_on_with_half_the_rate_and_the_rollback_does_not_undo_it(tmp_path: Path) -> None:
    made, reported = trainer(tmp_path)
    made.train(updates=1)
    for _ in range(2):
        made.ppo.poison = CONSECUTIVE_NONFINITE
        made.train(updates=1)
    made.train(updates=1)
    rate = made.config.training.learning_rate
    assert [each["learning_rate"] for each in reported] == pytest.approx([rate, rate, rate / 2, rate / 4])
    assert [each["rollbacks"] for each in reported] == [0, 1, 2, 2]
    made.close()


def test_a_resumed_trainer_is_as_cautious(tmp_path: Path) -> None:
    """It continues like one that was not interrupted, to the bit."""
    whole, reported = trainer(tmp_path / "whole")
    whole.ppo.poison = CONSECUTIVE_NONFINITE
    whole.train(updates=3)  # ends with a checkpoint
    (checkpoint,) = (tmp_path / "whole" / "checkpoints").glob("00000003.pt")
    whole.train(updates=2)
    resumed, after = trainer(tmp_path / "resumed")
    resumed.start_from(WarmStart(checkpoint=str(checkpoint), run_id="x", episode=0, exact=True))
    assert resumed.caution == Caution(factor=0.5, rollbacks=1, clean=2)
    resumed.train(updates=2)
    for name in ("learning_rate", "rollbacks", "loss/total", "approx_kl"):
        assert [each[name] for each in after] == [each[name] for each in reported[3:]]
    pairs = zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    for made in (whole, resumed):
        made.close()


def test_a_checkpoint_of_an_older_version_has_only_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = trainer(tmp_path / "old")
    made.train(updates=1)
    path = next((tmp_path / "old" / "checkpoints").glob("00000001.pt"))
    state, *rest = module.read_or_older(path, "")
    del state["caution"]
    monkeypatch.setattr(module, "read_or_older", lambda *_: (state | {"rollbacks": 2}, *rest))
    resumed, _ = trainer(tmp_path / "new")
    resumed.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=0, exact=True))
    assert resumed.caution == Caution(rollbacks=2)
    for each in (made, resumed):
        each.close()
