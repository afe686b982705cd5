"""A training script that knows nothing of ladder: its flags, its table and its checkpoints are taken as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.compare.from_store import load
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from tests.end_to_end.conftest import REPOSITORY


def test_the_example_goes_down_its_ladder_from_its_own_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["run", "examples/plain.yaml", f"tracking.root={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "from step " in said
    night = load(root=tmp_path)
    assert night.attempts.verdict.tolist() == ["gradient_explosion", "healthy"]
    assert night.attempts.score[1] > 0.7 and night.history(night.attempts.run_id[1], "score").step.max() == 200
    store = Store(default_uri(tmp_path), tmp_path)
    (parent,) = store.parents()
    first, second = store.attempts(parent)
    assert "--growth=1.07" in first.entity.data.tags["ladder.command"]
    assert "--resume" not in first.entity.data.tags["ladder.command"]
    assert second.warm_start is not None and 20 <= second.warm_start.episode <= 80 and second.counts == "step"
    attempt = json.loads((tmp_path / "attempts" / second.run_id / "attempt.json").read_text())
    assert attempt["command"][-2:] == ["--resume", attempt["warm_start"]["checkpoint"]]
    assert len(store.history(second.run_id, ["loss"]).series("loss")[0]) == 200 - second.warm_start.episode
    assert second.policy is not None and second.policy.endswith("model_200.npz")
