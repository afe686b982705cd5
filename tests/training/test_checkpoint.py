"""Checkpoints: atomic, checked, bounded in number, and exact to resume from."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import IO

import pytest
import torch

from fallbacks.ladder import BUILT_IN
from pipeline.attempt.checkpoint_files import fingerprint, sha256, usable
from pipeline.attempt.file import Carry, WarmStart
from pipeline.config import ExperimentConfig
from pipeline.training.checkpoint import (
    BadCheckpoint,
    prune,
    read_checkpoint,
    read_or_older,
    write_checkpoint,
)
from pipeline.training.trainer import Trainer
from pipeline.training.transfer import fit_inputs, fit_moments, select_experts
from tests.conftest import small_config

INFO = {"episode": 1, "step": 2, "update": 3, "score_window": None, "kind": "v3", "experts": ("a",)}


class Metrics(list[tuple[dict[str, float], int]]):
    def __call__(self, metrics: dict[str, float], step: int) -> None:
        self.append((metrics, step))

    def learnt(self) -> list[tuple[dict[str, float], int]]:
        """The metrics without timings and memory, which differ between equal runs."""
        clock = ("time/", "steps_per_second", "memory_mb")
        return [({key: value for key, value in m.items() if not key.startswith(clock)}, step) for m, step in self]


def make(config: ExperimentConfig, folder: Path, salt: int = 0) -> tuple[Trainer, Metrics]:
    metrics = Metrics()
    return Trainer(config, folder, metrics, salt), metrics


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.policy.state_dict().items()}


def test_same_seed_same_run(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    (one, first), (other, second) = make(rung_config, tmp_path / "1"), make(rung_config, tmp_path / "2")
    one.train(), other.train()
    assert first.learnt() == second.learnt()
    assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))


def test_other_seed_other_run(tmp_path: Path) -> None:
    (_, first), (_, second) = make(small_config(), tmp_path / "1"), make(small_config(training__seed=2), tmp_path / "2")
    for metrics, seed in ((first, 1), (second, 2)):
        trainer = Trainer(small_config(training__seed=seed, training__episodes=4), tmp_path / str(seed), metrics)
        trainer.train()
    assert first.learnt() != second.learnt()


def test_resume_is_bit_identical(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    """The resumed run equals the uninterrupted one: weights, optimiser, statistics, random state, games."""
    whole, metrics = make(rung_config, tmp_path / "whole")
    whole.train()
    folder = tmp_path / "whole" / "checkpoints"
    first = sorted(path for path in folder.glob("*.pt") if path.stem.isdigit())[0]
    info = json.loads(first.with_suffix(".json").read_text())
    assert info["episode"] < rung_config.training.episodes

    resumed, after = make(rung_config, tmp_path / "resumed")
    resumed.start_from(WarmStart(checkpoint=str(first), run_id="x", episode=info["episode"], exact=True))
    resumed.train()
    assert after.learnt() == metrics.learnt()[info["update"] :]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True))
    assert whole._learning_state()["normaliser"] == resumed._learning_state()["normaliser"]


def test_a_checkpoint_every_n_episodes_and_only_so_many(tmp_path: Path) -> None:
    config = small_config(training__episodes=24, training__checkpoint_every_episodes=4, training__checkpoints_kept=2)
    trainer, metrics = make(config, tmp_path)
    written: list[int] = []
    save = trainer.save
    trainer.save = lambda: (written.append(trainer.finished), save())[1]  # type: ignore[method-assign]
    trainer.train()
    finished = [int(each["episodes"]) for each, _ in metrics]
    crossed = [b for a, b in zip([0, *finished], finished, strict=False) if b // 4 > a // 4]
    assert written == [*crossed, finished[-1]]
    kept = sorted(path for path in (tmp_path / "checkpoints").glob("*.pt") if path.stem.isdigit())
    assert int(kept[-1].stem) == len(metrics) and 2 <= len(kept) <= 2 + 4
    assert len(list((tmp_path / "checkpoints").glob("best-*.pt"))) == 1


def test_old_checkpoints_are_kept_ever_more_thinly(tmp_path: Path) -> None:
    (tmp_path / "00000000.tmp").write_bytes(b"half of one that was never finished")
    for update in range(1, 401):
        write_checkpoint(tmp_path, f"{update:08d}", {}, **INFO)
        prune(tmp_path, keep=3)
    kept = sorted(int(path.stem) for path in tmp_path.glob("*.pt"))
    assert kept[-3:] == [398, 399, 400] and len(kept) <= 3 + 9
    gaps = [400 - each for each in kept]
    assert max(gaps) > 128 and all(older <= 4 * newer + 4 for older, newer in pairwise(gaps))
    assert {path.stem for path in tmp_path.glob("*.pt")} == {path.stem for path in tmp_path.glob("*.json")}
    assert not list(tmp_path.glob("*.tmp"))


def early(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("early-")) for path in folder.glob("early-*.pt"))


def test_early_checkpoints_stay_until_there_are_others_and_are_few(tmp_path: Path) -> None:
    for update in range(1, 2001):
        if update >= 2 and update & (update - 1) == 0:
            write_checkpoint(tmp_path, f"early-{update:08d}", {}, **INFO)
        if update % 40 == 0:
            write_checkpoint(tmp_path, f"{update:08d}", {}, **INFO)
        if update % 40 == 0 or update & (update - 1) == 0:
            prune(tmp_path, keep=3)
        if update == 79:
            assert early(tmp_path) == [2, 4, 8, 16, 32, 64]
        assert len(early(tmp_path)) <= 11
    assert early(tmp_path)[0] == 2 and len(early(tmp_path)) < 5
    regular = [path for path in tmp_path.glob("*.pt") if path.stem.isdigit()]
    assert len(regular) <= 3 + 11 and max(int(path.stem) for path in regular) == 2000
    assert {path.stem for path in tmp_path.glob("*.pt")} == {path.stem for path in tmp_path.glob("*.json")}


def test_a_training_without_a_hundred_episodes_has_checkpoints(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    """And one that goes on from an early one is the same to the last bit, later early checkpoints included."""
    config = rung_config.with_values({"training.checkpoint_every_episodes": 1000, "training.episodes": 1000})
    whole, metrics = make(config, tmp_path / "whole")
    whole.train(updates=9)
    assert early(tmp_path / "whole" / "checkpoints") == [2, 4, 8]
    path = tmp_path / "whole" / "checkpoints" / "early-00000002.pt"
    resumed, after = make(config, tmp_path / "resumed")
    resumed.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=0, exact=True))
    resumed.train(updates=7)
    assert early(tmp_path / "resumed" / "checkpoints") == [4, 8]
    assert after.learnt() == metrics.learnt()[2:]

    # Another attempt counts from its own beginning.
    other, _ = make(config, tmp_path / "other")
    other.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=0))
    other.train(updates=5)
    assert early(tmp_path / "other" / "checkpoints") == [4, 6]


def test_the_older_one_of_either_kind_takes_the_place_of_a_bad_one(tmp_path: Path) -> None:
    for name in ("early-00000002", "00000003", "early-00000004", "00000005", "best-00000003"):
        write_checkpoint(tmp_path, name, {"x": torch.tensor(int(name[-1]))}, **INFO)
    for bad, instead in (("early-00000004", 3), ("00000003", 2), ("best-00000003", 2), ("00000005", 4)):
        path = tmp_path / f"{bad}.pt"
        good = path.read_bytes()
        path.write_bytes(good[:-7])
        assert int(read_or_older(path)[0]["x"]) == instead
        path.write_bytes(good)


def test_where_workers_run_makes_no_other_configuration(rung_config: ExperimentConfig) -> None:
    for config in (rung_config, BUILT_IN["freeze_gat"].transform(ExperimentConfig())):  # its training is the default
        serial, other = config.with_values({"training.parallel": False}), config.with_values({"training.gamma": 0.9})
        assert fingerprint(serial) == fingerprint(config) != fingerprint(other)


def test_damage_and_foreign_formats_are_recognised(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, "00000001", {"x": torch.ones(3)}, **INFO)
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(3))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(BadCheckpoint, match="damaged"):
        read_checkpoint(path)
    path.write_bytes(good)
    description = path.with_suffix(".json")
    description.write_text(description.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(BadCheckpoint, match="format 99"):
        read_checkpoint(path)
    with pytest.raises(BadCheckpoint):
        read_checkpoint(tmp_path / "missing.pt")


def test_a_failed_write_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path, "00000001", {"x": torch.ones(3)}, **INFO)

    def full(_: object, target: IO[bytes]) -> None:
        target.write(b"half of a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.training.checkpoint.torch.save", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, "00000001", {"x": torch.zeros(3)}, **INFO)
    assert not list(tmp_path.glob("*.tmp"))
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(3))


def test_select_experts_keeps_rows_by_name() -> None:
    tensors = {"experts.w": torch.arange(4.0), "critic.w": torch.arange(4.0)}
    chosen = select_experts(tensors, {"experts.w"}, ("a", "b", "c", "d"), ("a", "d"))
    assert chosen["experts.w"].tolist() == [0.0, 3.0] and len(chosen["critic.w"]) == 4


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "v3"])
def test_each_rung_carries_over_what_it_declares(name: str, tmp_path: Path) -> None:
    base = small_config()
    trained, _ = make(base, tmp_path / "v3")
    trained.train()
    path = sorted((tmp_path / "v3" / "checkpoints").glob("0*.pt"))[-1]
    info = json.loads(path.with_suffix(".json").read_text())
    rung = BUILT_IN[name]
    config = rung.transform(base)
    fresh, _ = make(config, tmp_path / name, salt=1)
    before = weights(fresh)
    fresh.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=info["episode"], carry=rung.carry))
    source = weights(trained)
    for key, tensor in weights(fresh).items():
        if rung.carry.modules is not None and key.split(".")[0] not in rung.carry.modules:
            assert torch.equal(tensor, before[key]), key
        elif name == "two_experts" and key in fresh.policy.expert_rows():
            assert torch.equal(tensor, source[key][[0, 3]]), key
        else:
            assert torch.equal(tensor, source[key]), key
    state = fresh.ppo.state()
    if name == "v2_router_gat":
        assert not state["moments"] and fresh.finished == 0 and fresh.steps == 0
    else:
        assert fresh.finished == info["episode"] and fresh.steps == info["step"]
        assert state["optimiser_steps"] == trained.ppo.optimiser_steps
        expected = {key for key, parameter in fresh.policy.named_parameters() if parameter.requires_grad}
        assert state["moments"].keys() == expected
    longer, metrics = make(config.with_values({"training.episodes": 16}), tmp_path / "on", salt=1)
    longer.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=info["episode"], carry=rung.carry))
    assert longer.train() and metrics


def test_carry_without_optimiser_starts_it_anew(tmp_path: Path) -> None:
    trained, _ = make(small_config(), tmp_path / "v3")
    trained.train()
    path = sorted((tmp_path / "v3" / "checkpoints").glob("0*.pt"))[-1]
    fresh, _ = make(small_config(), tmp_path / "new")
    carry = Carry(optimiser=False)
    fresh.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=12, carry=carry))
    assert not fresh.ppo.state()["moments"]


def test_a_remedy_forgets_a_parts_moments_and_can_begin_the_warm_up_again(tmp_path: Path) -> None:
    """The weights are the checkpoint's; Adam knows nothing of the router, and still all of the rest."""
    trained, _ = make(small_config(), tmp_path / "v3")
    trained.train()
    path = sorted((tmp_path / "v3" / "checkpoints").glob("0*.pt"))[-1]
    saved = read_checkpoint(path)
    router = {name for name in saved["policy"] if name.startswith("router.")}
    assert router and router <= saved["ppo"]["moments"].keys() and saved["ppo"]["optimiser_steps"] > 0
    for warmed_up in (True, False):
        fresh, metrics = make(small_config(training__episodes=16), tmp_path / f"new {warmed_up}")
        carry = Carry(forgets=("router",), warmed_up=warmed_up)
        fresh.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=12, carry=carry))
        state = fresh.ppo.state()
        assert state["moments"].keys() == saved["ppo"]["moments"].keys() - router
        assert all(torch.equal(fresh.policy.state_dict()[name], saved["policy"][name]) for name in router)
        assert state["optimiser_steps"] == (saved["ppo"]["optimiser_steps"] if warmed_up else 0)
        assert fresh.train() and metrics
        assert router <= fresh.ppo.state()["moments"].keys()


def test_an_upcycled_mixture_plays_as_its_leader_did_and_can_part_again(tmp_path: Path) -> None:
    """Whatever the new router says: every expert is the one that led, but for a share of its own first weights."""
    trained, _ = make(small_config(policy__router_bias=[0, 9, 0, 0]), tmp_path / "v3")
    trained.train()
    path = sorted((tmp_path / "v3" / "checkpoints").glob("0*.pt"))[-1]
    saved = read_checkpoint(path)
    assert saved["usage"].index(max(saved["usage"])) == 1 and sum(saved["usage"]) == pytest.approx(1)
    fresh, metrics = make(small_config(training__episodes=16), tmp_path / "new")
    before = {name: tensor.clone() for name, tensor in fresh.policy.state_dict().items()}
    carry = Carry(forgets=("router", "experts"), upcycles=True)
    fresh.start_from(WarmStart(checkpoint=str(path), run_id="x", episode=12, carry=carry))
    state = fresh.policy.state_dict()
    for name, tensor in saved["policy"].items():
        part = name.split(".")[0]
        if part == "router":
            assert torch.equal(state[name], before[name])
        elif part == "experts":
            assert torch.equal(state[name][1], tensor[1])
            others = torch.tensor([1, 0, 1, 1])[:, None, None]
            assert torch.allclose(state[name], tensor[1] + 0.1 * others * before[name])
        else:
            assert torch.equal(state[name], tensor)
    assert not any(name.startswith(("router.", "experts.")) for name in fresh.ppo.state()["moments"])
    assert fresh.train() and metrics


def test_the_one_before_is_used_where_a_checkpoint_is_bad(tmp_path: Path) -> None:
    """Bad checkpoints: damaged, of another configuration, without a description, or no checkpoint at all."""
    for number, configuration in enumerate(("mine", "mine", "another", "mine", "mine"), start=1):
        info = INFO | {"configuration": configuration}
        write_checkpoint(tmp_path, f"{number:08d}", {"x": torch.tensor(number)}, **info)
    damaged, undescribed = tmp_path / "00000005.pt", tmp_path / "00000004.json"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    undescribed.unlink()
    state, path, problems = read_or_older(damaged, "mine")
    assert path.stem == "00000002" and int(state["x"]) == 2
    assert [next(word for word in ("damaged", "No such file", "another") if word in each) for each in problems] == [
        "damaged", "No such file", "another",
    ]  # fmt: skip
    good, bad = usable(tmp_path, "mine")
    assert [Path(each.path).stem for each in good] == ["00000001", "00000002"] and len(bad) == 3
    for path in tmp_path.glob("*.json"):
        path.write_text("[]")
    with pytest.raises(BadCheckpoint):
        read_or_older(damaged, "mine")


def test_a_pickle_with_powers_is_refused(tmp_path: Path) -> None:
    """Any process that can write to the folder can make a checkpoint of anything, so its content is never run."""
    path = write_checkpoint(tmp_path, "00000001", {"x": torch.ones(1)}, **INFO)
    touched = tmp_path / "touched"

    class Power:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return touched.touch, ()  # type: ignore[return-value]

    torch.save({"x": Power()}, path)
    description = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(description | {"sha256": sha256(path)}))
    with pytest.raises(BadCheckpoint):
        read_checkpoint(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("before", "after", "frozen"),
    [("none", "graph", False), ("none", "stats", False), ("graph", "none", False), ("none", "graph", True)],
)
def test_a_policy_that_is_told_more_plays_on_as_before(before: str, after: str, frozen: bool, tmp_path: Path) -> None:
    """As with checkpoints from before there were paths: their description names no other configuration."""
    old, _ = make(small_config(environment__paths=before, policy__gat_frozen=frozen), tmp_path / "old")
    old.train(updates=2)
    (checkpoint,) = (tmp_path / "old" / "checkpoints").glob("0*.pt")
    description = json.loads(checkpoint.with_suffix(".json").read_text())
    checkpoint.with_suffix(".json").write_text(json.dumps(description | {"configuration": ""}))

    new, metrics = make(small_config(environment__paths=after, policy__gat_frozen=frozen), tmp_path / "new")
    new.start_from(WarmStart(checkpoint=str(checkpoint), run_id="x", episode=description["episode"], exact=True))
    theirs, ours = weights(old), weights(new)
    differing = {name for name in theirs if theirs[name].shape != ours[name].shape}
    assert differing == ({"visual.stats.weight"} if after == "stats" else {"gat.enter.weight"})
    for name in theirs:
        least = min(theirs[name].shape[-1:], ours[name].shape[-1:])
        assert torch.equal(theirs[name][..., slice(*least)], ours[name][..., slice(*least)])
    for name in differing:
        assert not ours[name][..., theirs[name].shape[-1] :].any()
    new.train(updates=3)
    assert metrics and all(torch.isfinite(tensor).all() for tensor in weights(new).values())
    if after != "none":
        assert all(weights(new)[name][..., theirs[name].shape[-1] :].any() != frozen for name in differing)


def test_weights_of_new_inputs_begin_with_small_steps() -> None:
    """After many steps Adam's second moment is the mean of many squares; a new input's must not be its first square."""
    torch.manual_seed(0)
    name, rate = "gat.enter.weight", 1e-3
    old = torch.nn.Parameter(torch.randn(8, 5))
    adam = torch.optim.Adam([old], lr=rate)
    for _ in range(500):
        old.grad = torch.randn(8, 5) * 0.01
        adam.step()
    new = torch.nn.Parameter(fit_inputs({name: old.detach()}, {name: torch.empty(8, 7)})[name])
    assert torch.equal(new[:, :5], old) and not new[:, 5:].any()
    again = torch.optim.Adam([new], lr=rate)
    again.state[new] = fit_moments({name: dict(adam.state[old])}, {name: new.detach()})[name]
    for _ in range(5):
        new.grad = torch.randn(8, 7) * 0.01
        again.step()
    assert 0 < float(new[:, 5:].detach().abs().max()) < 3 * rate
