"""The random baseline is the same wherever it is played, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import ExperimentConfig
from pipeline.training.baseline import Baseline, measure_random
from tests.conftest import small_config

BESIDE = """
import json, sys, time
import psutil
from pipeline.config import ExperimentConfig
from pipeline.training.baseline import Baseline

config = ExperimentConfig.model_validate_json(sys.argv[1])

def beside(how):
    baseline = Baseline(config, None)
    (child,) = psutil.Process().children()
    found = None
    if how == "wait":
        found = baseline.result(lambda: True)
    elif how == "poll":
        while (found := baseline.result()) is None:
            time.sleep(0.01)
    elif how == "close":
        baseline.close()
    else:
        child.kill()
        found = baseline.result(lambda: True)
    return found, baseline.result(), child.is_running()

print(json.dumps({how: beside(how) for how in ("wait", "poll", "close", "kill")}))
"""


@pytest.fixture(scope="module")
def beside() -> dict[str, list[object]]:
    """What a process without threads finds: the result, the result once more, and whether the player still runs."""
    command = [sys.executable, "-c", BESIDE, small_config().model_dump_json()]
    root = Path(__file__).parent.parent.parent
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=True)
    return json.loads(said.stdout.splitlines()[-1]) | {"said": [said.stderr]}


def test_played_beside_it_is_what_is_played_here(beside: dict[str, list[object]]) -> None:
    here = measure_random(small_config())
    assert here.keys() == {"random/score", "random/score_low", "random/score_high"}
    assert beside["wait"] == beside["poll"] == [here, None, False]


def test_closed_before_its_end_it_is_gone(beside: dict[str, list[object]]) -> None:
    assert beside["close"] == [None, None, False]


def test_a_player_that_dies_says_so(beside: dict[str, list[object]]) -> None:
    """And the training goes on without it."""
    assert beside["kill"] == [None, None, False]
    assert "could not be played, exit code -9" in str(beside["said"])


def test_what_is_known_is_not_played_again() -> None:
    known = {"random/score": 1.0}
    baseline = Baseline(ExperimentConfig(), known)
    assert baseline.result() == known and baseline.result(lambda: True) is None
