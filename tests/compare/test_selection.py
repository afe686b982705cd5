"""Which metrics of a script are shown, by their names alone."""

from __future__ import annotations

import pytest

from pipeline.compare.selection import MOST, main_metrics

LAYERS = [f"train/layer{number}/grad_norm" for number in range(30)]
NOISE = [f"diag/value_{number}" for number in range(18)]


def test_what_was_named_comes_first_then_what_rules_found_then_what_the_names_tell() -> None:
    logged = ["loss", "accuracy", "weights", "flow", "lr", *NOISE]
    assert main_metrics(logged, named=["weights"], found=["flow", "weights"])[:2] == ["weights", "flow"]
    assert main_metrics(logged)[:3] == ["accuracy", "loss", "lr"]


def test_many_of_a_kind_leave_room_for_the_others() -> None:
    logged = [*LAYERS, *NOISE, "train/loss", "policy_loss", "ep_rew_mean", "eval/accuracy", "lr", "grad_norm"]
    chosen = main_metrics(logged)
    assert {"train/loss", "policy_loss", "ep_rew_mean", "eval/accuracy", "lr", "grad_norm"} <= {*chosen}
    assert len([name for name in chosen if "grad" in name]) == 2 and len(chosen) <= MOST
    assert chosen.index("train/loss") < chosen.index("policy_loss")


def test_all_are_shown_where_all_have_room_and_a_few_where_no_name_tells() -> None:
    assert main_metrics(["b", "a", "loss"]) == ["loss", "a", "b"]
    assert main_metrics(NOISE) == sorted(NOISE)[:6]
    assert main_metrics([]) == []


@pytest.mark.parametrize("name", ["system/cpu", "progress", "episodes", "steps_per_second", "cost/seconds", "random/x"])
def test_what_has_a_place_of_its_own_is_no_curve(name: str) -> None:
    assert main_metrics([name, "loss"]) == ["loss"]


def test_never_more_than_asked_for() -> None:
    named = [f"score_{number}" for number in range(20)]
    assert main_metrics(named, named=named) == named[:MOST]
    assert len(main_metrics([*named, "loss"], most=3)) == 3


def test_a_name_that_was_not_logged_is_not_shown() -> None:
    assert main_metrics(["loss"], named=["reward"], found=["flow"]) == ["loss"]
