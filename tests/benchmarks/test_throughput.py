"""The throughput benchmark, small: every name that is promised is there, and V3's time is accounted for."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from benchmarks import throughput
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.verdict import Verdict
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from tests.conftest import RUNGS, small_config


def test_names_ratios_and_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = small_config(training__parallel=False, training__episodes=10**6, health__poll_seconds=0.02)
    monkeypatch.setattr(throughput, "BASE", base)
    out = tmp_path / "throughput.json"
    monkeypatch.setattr("sys.argv", ["throughput", "--rounds", "2", "--updates", "1", "--out", str(out)])
    throughput.main()
    written = json.loads(out.read_text())
    speeds = written["steps_per_second"]
    assert {*RUNGS, "v3_serial", "ppo", "sb3", "sb3_v3", "sb3_batched", "sb3_v3_batched", "environment"} == set(speeds)
    assert all(speed > 0 for speed, *_ in speeds.values()) and speeds["environment"] > speeds["v3"]
    for name in ("sb3", "sb3_v3"):
        paired = sorted(each[name]["v3"] / each[name][name] for each in written["rounds"])
        assert paired[0] <= written["v3_over"][name][0] <= paired[-1]
    shares = written["v3_shares"]
    assert sum(shares.values()) == pytest.approx(1.0) and all(share > 0 for share in shares.values())
    assert 0 < written["health"] < 1


def test_what_watching_takes_is_what_its_polls_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = small_config(training__parallel=False, training__episodes=10**6, health__poll_seconds=0.02)
    monkeypatch.setattr(throughput, "BASE", base)
    store, spent, poll = Store(default_uri(tmp_path), tmp_path), [0.0], Watchdog.poll

    def timed(watch: Watchdog) -> Verdict | None:
        began = time.thread_time()
        verdict = poll(watch)
        if threading.current_thread() is not threading.main_thread():
            spent.append(time.thread_time() - began)
        return verdict

    monkeypatch.setattr(Watchdog, "poll", timed)
    training = throughput.Training(base, store, tmp_path)
    began = time.perf_counter()
    share = throughput.watching(training, store, tmp_path, 20)
    assert 0 < sum(spent) / (time.perf_counter() - began) <= share < 1
    assert store.latest(training.run_id)["update"][1] > 3  # one that came after those of the warm-up
    training.trainer.close()
