"""What a person sees in the MLflow UI, in real Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from fallbacks.ladder import BUILT_IN
from pipeline.config import difference
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking import tags
from pipeline.tracking.store import Store
from pipeline.tracking.view import KEY, charts_address, comparison_address, shared_view, table_address
from tests.conftest import small_config

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,2400",
    "--virtual-time-budget=30000",
)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str, list[str]]:
    """A finished ladder of two attempts, said to the store as the orchestrator says it."""
    root = tmp_path_factory.mktemp("root")
    store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
    base = small_config(experiment__name="seen")
    parent = store.start_parent(base)
    collapsed = Evidence(rule="load", metric="expert_usage_excess", values=(0.9,), threshold="> 0.73", onset_step=64)
    verdicts = (Verdict(name="expert_collapse", evidence=(collapsed,)), Verdict(name="healthy"))
    attempts = []
    for number, (name, verdict) in enumerate(zip(("v3", "softmax_only"), verdicts, strict=True)):
        config = BUILT_IN[name].transform(base)
        run = store.start_attempt(
            parent, config, rung=name, number=number, diff=difference(base, config), warm_start=None, reason="test"
        )
        store.log_metrics(run, {"alpha_entropy": 1.2, "score_window": 12.5 + number}, step=64)
        store.set_tags(run, {tags.QUALITY: "above_random"})
        store.end_attempt(run, verdict)
        attempts.append(run)
    table = pd.DataFrame({"rung": ["v3", "softmax_only"], "verdict": [verdict.name for verdict in verdicts]})
    store.end_parent(parent, "healthy", "softmax_only", table, "**healthy**, a note for the morning")
    return store, parent, attempts


@pytest.fixture(scope="module")
def server(ladder: tuple[Store, str, list[str]]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store, parent, _ = ladder
    said = store.root / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "ui", "--port", str(port), f"tracking.root={store.root}"],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        assert (
            f"charts of seen seed 1: {charts_address(address, store.experiment_id('seen'), parent)}" in said.read_text()
        )
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def page(address: str, profile: Path) -> str:
    """The document as Chromium has built it."""
    result = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )
    return result.stdout


def test_parent_shows_outcome_note_and_attempts(
    ladder: tuple[Store, str, list[str]], server: str, tmp_path: Path
) -> None:
    store, parent, _ = ladder
    experiment = store.experiment_id("seen")
    seen = page(f"{server}/#/experiments/{experiment}/runs/{parent}", tmp_path)
    for expected in ("ladder.settled_rung", "softmax_only", "a note for the morning", "0 v3", "1 softmax_only"):
        assert expected in seen, expected


def test_attempt_shows_verdict_and_evidence(ladder: tuple[Store, str, list[str]], server: str, tmp_path: Path) -> None:
    store, _, (failed, _) = ladder
    experiment = store.experiment_id("seen")
    seen = page(f"{server}/#/experiments/{experiment}/runs/{failed}", tmp_path)
    for expected in ("Failed", "ladder.verdict", "expert_collapse", "expert_usage_excess", "training.learning_rate"):
        assert expected in seen, expected


def test_the_shared_view_has_the_attempts_with_the_best_first(
    ladder: tuple[Store, str, list[str]], server: str, tmp_path: Path
) -> None:
    seen = page(table_address(server, ladder[0].experiment_id("seen")), tmp_path)
    for expected in ("shared view", "2</strong> matching runs", "ladder.verdict", "expert_collapse", "above_random"):
        assert expected in seen, expected
    assert seen.index("1 softmax_only") < seen.index("0 v3")


def test_charts_and_comparison_have_the_attempts_of_one_experiment(
    ladder: tuple[Store, str, list[str]], server: str, tmp_path: Path
) -> None:
    store, parent, attempts = ladder
    experiment = store.experiment_id("seen")
    seen = page(charts_address(server, experiment, parent), tmp_path / "charts")
    assert "0 v3" in seen and "1 softmax_only" in seen and "Search metric charts" in seen
    seen = page(comparison_address(server, experiment, attempts), tmp_path / "comparison")
    assert "Comparing 2 Runs from 1 Experiment" in seen and attempts[1] in seen


def test_the_view_is_put_into_an_experiment_that_was_made_without_it(empty_store: Store) -> None:
    experiment = empty_store.experiment_id("older")
    name = f"{tags.VIEW}{KEY}"
    empty_store.client.set_experiment_tag(experiment, f"{tags.VIEW}abc", "a person's own")
    empty_store.client.delete_experiment_tag(experiment, name)
    empty_store.offer_view(experiment)
    found = empty_store.client.get_experiment(experiment).tags
    assert (found[name], found[f"{tags.VIEW}abc"]) == (shared_view(), "a person's own")
    empty_store.client.set_experiment_tag(experiment, name, "changed by a person")
    empty_store.offer_view(experiment)
    assert empty_store.client.get_experiment(experiment).tags[name] == "changed by a person"


def test_runs_table_shows_the_experiment(ladder: tuple[Store, str, list[str]], server: str, tmp_path: Path) -> None:
    experiment = ladder[0].experiment_id("seen")
    seen = page(f"{server}/#/experiments/{experiment}/runs", tmp_path)
    assert "seen seed 1" in seen and "matching runs" in seen
