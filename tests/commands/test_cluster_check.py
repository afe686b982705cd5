"""What `ladder check` asks a cluster, and which stores a cluster's nodes cannot use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands import cluster
from pipeline.commands.cluster import ask_cluster, require_reachable_store
from pipeline.errors import BadInput
from pipeline.launchers.channel import Channel, Launch
from tests.conftest import small_config
from tests.launchers.fake_engine import FakeEngine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with contextlib.closing(FakeEngine(tmp_path / "engine")) as engine:
        monkeypatch.setattr(cluster, "make_engine", lambda config: engine)
        yield engine


def config(root: Path, **more: Any) -> Any:
    return small_config(launcher__kind="slurm", tracking__root=str(root), **more)


def test_a_node_looks_at_the_root_and_leaves_nothing(tmp_path: Path, engine: FakeEngine) -> None:
    found = list(ask_cluster(config(tmp_path / "root")))
    assert [(each.what, each.good) for each in found] == [("jobs", True), ("shared root", True), ("store", True)]
    assert "at the same path" in found[1].words and not list(tmp_path.glob(".ladder*"))


def test_what_the_cluster_refuses_is_all_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "make_engine", lambda config: FakeEngine(tmp_path / "e", "no such partition"))
    (found,) = ask_cluster(config(tmp_path / "root"))
    assert found.good is False and found.words == "fake takes no such job: no such partition"


def test_a_cluster_that_is_away(tmp_path: Path, engine: FakeEngine) -> None:
    (engine.folder / "away").touch()
    (found,) = ask_cluster(config(tmp_path / "root"))
    assert found.good is False and "does not answer" in found.words


def test_a_queue_that_is_long_is_not_waited_for(tmp_path: Path, engine: FakeEngine) -> None:
    (engine.folder / "hold").touch()
    found = list(ask_cluster(config(tmp_path / "root"), seconds=1.0))
    assert found[1].good is None and "not known yet" in found[1].words and "held" in found[1].words


@pytest.mark.parametrize("word", ["nonsense", "/nowhere"])
def test_a_server_that_nodes_do_not_reach(tmp_path: Path, engine: FakeEngine, word: str) -> None:
    found = list(ask_cluster(config(tmp_path / "root", tracking__uri="http://user:tell-nobody@127.0.0.1:9/" + word)))
    assert found[2].good is False and "does not reach the server" in found[2].words
    assert "tell-nobody" not in found[2].words


def test_the_probe_knows_no_password(tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Launch] = []
    say = Channel.say
    monkeypatch.setattr(Channel, "say", lambda self, word: (said.append(word), say(self, word)))
    list(ask_cluster(config(tmp_path / "root", tracking__uri="http://user:tell-nobody@127.0.0.1:9")))
    launches = [word for word in said if isinstance(word, Launch)]
    assert launches and not any("tell-nobody" in word for word in launches[0].command)


@pytest.mark.parametrize(("kind", "refused"), [("nfs4", True), ("lustre", True), ("ext4", False), (None, False)])
def test_sqlite_on_a_network_file_system_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, refused: bool
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(cluster, "file_system", lambda path: kind)
    require_reachable_store(small_config(tracking__root=str(tmp_path)))  # of this machine
    require_reachable_store(config(tmp_path, tracking__uri="http://127.0.0.1:9"))
    if refused:
        with pytest.raises(BadInput, match=rf"tracking\.uri: .*\({kind}\).*name a tracking server") as error:
            require_reachable_store(config(tmp_path))
        assert len(str(error.value).splitlines()) == 1
    else:
        require_reachable_store(config(tmp_path))
