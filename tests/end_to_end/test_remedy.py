"""A training that fails, and the remedy that cures it on its own rung, through the death of its orchestrator."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from fallbacks.remedies import REMEDIES
from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder
from pipeline.config import difference

TOO_FAST = {
    "name": "too_fast",
    "verdict": "gradient_explosion",
    "conditions": [{"metric": "learning_rate", "above": 6e-5}],
}
"""A failure that is certain to come, and that half the learning rate is certain to cure."""
VALUES = {
    "training__episodes": 40,
    "training__checkpoint_every_episodes": 2,
    "training__warmup_steps": 40,
    "training__cosine": False,
    "training__critic_coef": 6.0,
    "phases__warmup_until": 40,
    "phases__transition_until": 40,
    "health__extra": [TOO_FAST],
    "preflight__accept": ["learning_rate", "temperature", "monitor"],
}


def test_a_remedy_is_an_attempt_of_its_rung_and_survives_its_orchestrator(experiment: Any) -> None:
    made = experiment(**VALUES, ladder__rungs=["v3", "freeze_gat"])
    process = made.start()
    until = time.monotonic() + 200
    while not (made.has_store and len(made.attempts) == 2 and made.attempts[1].data.metrics.get("update", 0) >= 3):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = made.resume()
    assert result.returncode == 0, result.stdout + result.stderr

    v3, remedied = made.attempts
    tags = remedied.data.tags
    assert (v3.data.tags["ladder.verdict"], tags["ladder.verdict"]) == ("gradient_explosion", "healthy")
    assert (tags["ladder.rung"], tags["ladder.remedy"]) == ("v3", "calm_gradients")
    assert "ladder.remedy" not in v3.data.tags
    assert remedied.info.run_name == "1 v3 + calm_gradients"
    assert tags["ladder.reason"] == "the remedy for gradient_explosion of v3"
    assert tags["ladder.warm_start"] == "scratch"  # the rate has risen from the first report on: no step was sound

    first, file = (AttemptFile.read(AttemptFolder.of(made.root, run.info.run_id).file) for run in (v3, remedied))
    assert file.config.training == REMEDIES["calm_gradients"].applied(first.config, 0).training
    assert set(json.loads(tags["ladder.diff"])) == difference(first.config, file.config).keys()
    assert file.remedy == "calm_gradients" and file.config.training.critic_coef == 0.5
    rates = [each.value for each in made.client.get_metric_history(remedied.info.run_id, "learning_rate")]
    assert rates[0] < 1e-5 and max(rates) == 5e-5  # warmed up again, to half of what it was

    parent = made.parent.data.tags
    assert parent["ladder.settled_rung"] == "v3" and parent["ladder.settled_run"] == remedied.info.run_id
    note = parent["mlflow.note.content"]
    assert "| 1 | v3 + calm_gradients | healthy |" in note and "v3 + calm_gradients trained to the end" in note
    assert "attempt 1: v3 + calm_gradients" in result.stdout
    assert "1 v3 + calm_gradients" in made.heard("status")
    compared = made.heard("compare", "--out", str(made.folder))
    assert "healthy on v3 + calm_gradients" in compared and "1 v3 + calm_gradients" in compared
    page = next(made.folder.glob("*.html")).read_text()
    assert "settled on <b>v3 + calm_gradients</b>" in page
