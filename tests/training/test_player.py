"""A trained policy that plays: the same policy, reproducible games, and pictures that open."""

from __future__ import annotations

import io
import pickle
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from pipeline.config import ExperimentConfig
from pipeline.environments.names import SITUATIONS
from pipeline.policy.interface import Routing
from pipeline.training.attention import draw, liveliest
from pipeline.training.film import film
from pipeline.training.measure import routing_by_situation
from pipeline.training.player import Player
from pipeline.training.recording import moments, record
from pipeline.training.replay import replay
from pipeline.training.trainer import Trainer
from tests.conftest import collect, small_config


@pytest.fixture
def trained(rung_config: ExperimentConfig, tmp_path: Path) -> Iterator[tuple[Trainer, Player]]:
    trainer = Trainer(rung_config, tmp_path, lambda *_: None)
    trainer.train(updates=2)
    (newest,) = (tmp_path / "checkpoints").glob("0*.pt")
    yield trainer, Player.from_checkpoint(newest, rung_config)
    trainer.close()


def test_player_is_the_policy_that_was_trained(trained: tuple[Trainer, Player]) -> None:
    """Compared on moments of its own games: logits without dropout, with the routing of the phase it has reached."""
    trainer, player = trained
    game = player.new_game(7)
    observation, _ = game.reset()
    batch = player.batched([observation, game.step(0)[0]])
    torch.manual_seed(0)
    found = player(batch)
    obs = player.encoded(batch)
    torch.manual_seed(0)
    noise = trainer.policy.draw_noise(2, torch.default_generator, torch.device("cpu"))
    noise.pop("dropout", None)
    collector = trainer.workers.here[0].collector
    collector.count_from(trainer.finished)
    routing = collector._routing()
    expected = trainer.policy(obs, Routing(routing.sparse[:2], routing.temperature[:2]), noise)
    assert torch.equal(found, expected.logits)
    assert isinstance(player.act(observation), int)


def test_recorded_games_are_whole_and_can_be_repeated(trained: tuple[Trainer, Player]) -> None:
    _, player = trained
    first, again = record(player, [3, 4]), record(player, [3, 4])
    for one, other in zip(first, again, strict=True):
        assert one.episode is not None and len(one.frames) == one.episode.steps == len(other.frames)
        assert all(np.array_equal(a.weights, b.weights) for a, b in zip(one.frames, other.frames, strict=True))
        assert one.frames[0].weights.sum() == pytest.approx(1, abs=1e-5)
    assert not np.array_equal(first[0].frames[0].chars, first[1].frames[0].chars)
    shown = list(moments(player, 3))
    assert shown[-1][2] is not None and all(ended is None for _, _, ended in shown[:-1])


def test_replay_where_there_is_no_terminal(trained: tuple[Trainer, Player]) -> None:
    """It prints the last screen once, and how the game ended."""
    said = io.StringIO()
    ended = replay(trained[1], seed=3, pace=60.0, console=Console(file=said, width=120), about="seed 3")
    assert said.getvalue().count("Dlvl:") == 1 and "survival" in said.getvalue() and "step 40" in said.getvalue()
    assert ended.endswith("after 40 steps, cut at the step cap")


def test_pictures_open(trained: tuple[Trainer, Player]) -> None:
    _, player = trained
    signs: list[int] = []
    (recording,) = record(player, [3], lambda: signs.append(1))
    assert len(signs) == len(recording.frames)
    picture = Image.open(io.BytesIO(film(recording, player.experts, "a game")))
    assert picture.n_frames > 1 and picture.size == (728, 336)
    seen = len(picture.convert("RGB").getcolors(maxcolors=100_000) or [])
    assert seen > 5
    frame = liveliest(player, recording)
    drawing = draw(player, frame, player.experts)
    attention = player.attention(player.batched([frame.observation]))
    assert drawing is not None and attention is not None  # every rung has a graph encoder
    weights = attention[0][0]
    assert weights.sum() == pytest.approx(1, abs=1e-4) and weights.min() >= 0
    root = ElementTree.fromstring(drawing)
    lines = root.findall(".//{http://www.w3.org/2000/svg}line")
    assert len(lines) == (weights > 0).sum() - 1
    words = "".join(root.itertext())
    assert all(name in words for name in player.experts) and "@" in words


def test_routing_by_situation_is_the_mean_over_such_moments(tmp_path: Path) -> None:
    trainer = Trainer(small_config(), tmp_path, lambda *_: None)
    _, played = collect(trainer)
    played.situations[:] = False
    played.situations[..., 3] = True
    played.situations[2, 1] = True, False, True, False  # one moment: the hero is hurt and sees new map
    found = routing_by_situation(played, trainer.policy.expert_names)
    trainer.close()
    count = played.reward.size
    assert [found[f"situation/{name}"] for name in SITUATIONS] == pytest.approx(
        [1 / count, 0, 1 / count, 1 - 1 / count]
    )
    for name, usage in zip(trainer.policy.expert_names, played.alpha[2, 1], strict=True):
        assert found[f"routing/low_hit_points/{name}"] == found[f"routing/new_map/{name}"] == pytest.approx(usage)
    assert not any(name.startswith("routing/monster_adjacent/") for name in found)
    others = np.delete(played.alpha.reshape(count, -1), 2 * played.reward.shape[1] + 1, axis=0).mean(0)
    assert [found[f"routing/else/{name}"] for name in trainer.policy.expert_names] == pytest.approx(others.tolist())


def test_a_player_from_before_a_key_of_the_configuration_plays(tmp_path: Path) -> None:
    """A logged model is a pickled player; keys that are newer have their defaults."""
    trainer = Trainer(small_config(), tmp_path, lambda *_: None)
    old = Player(trainer.policy, small_config(), 0)
    del old.environment.__dict__["action_mask"]
    player = pickle.loads(pickle.dumps(old))
    assert player.environment == small_config().environment
    game = player.new_game(seed=1)
    observation, _ = game.reset()
    assert observation["action_mask"][player.act(observation)]
    game.close()
    trainer.close()
