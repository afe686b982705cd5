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
from pipeline.tracking.store import Store
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
        store.log_metrics(run, {"alpha_entropy": 1.2, "score_window": 12.5}, step=64)
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
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", ladder[0].uri],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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


def test_runs_table_shows_the_experiment(ladder: tuple[Store, str, list[str]], server: str, tmp_path: Path) -> None:
    experiment = ladder[0].experiment_id("seen")
    seen = page(f"{server}/#/experiments/{experiment}/runs", tmp_path)
    assert "seen seed 1" in seen and "matching runs" in seen
