"""Of all that an experiment leaves, and of all that it says, nothing has a password in it."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import psutil

from pipeline.attempt.file import AttemptFile
from pipeline.callbacks.notes import resume_command
from pipeline.config import TrackingSection
from tests.end_to_end.conftest import Experiment, evidence

PASSWORD, OTHER, THIRD = "correct-horse-7", "battery-staple-8", "paper-clip-9"
INDISCREET = """
import json, os, sys, time
from pathlib import Path
attempt = Path(os.environ["LADDER_ATTEMPT"])
parameters = json.loads(attempt.read_text())["config"]["trainer"]["parameters"]
sys.path.insert(0, {repository!r})
from pipeline.attempt.spool import Spool, SpoolWriter
SpoolWriter(Spool(attempt.parent)).write({{"update": 1, "episodes": 1}}, step=1)
print(dict(os.environ))
print("\\x1b[31mdata from\\x1b[0m", parameters["data"], flush=True)
if "until" in parameters:
    while not Path(parameters["until"]).exists():
        time.sleep(0.05)
raise RuntimeError(f"no answer from {{os.environ['https_proxy']}} for {{parameters['data']}}")
"""


def indiscreet(experiment: Any, **values: Any) -> Experiment:
    """An experiment whose trainer prints all that it knows, and ends with an error that says it again."""
    made: Experiment = experiment(
        trainer__parameters={"data": f"postgresql://bob:{PASSWORD}@127.0.0.1/games", **values.pop("parameters", {})},
        notify__command=["true", "-u", f"carol:{THIRD}", f"https://dave:{THIRD}@127.0.0.1/hook"],
        ladder__rungs=["v3", {"name": "other", "set": {"trainer.parameters.data": f"http://bob:{OTHER}@127.0.0.1/"}}],
        budget__retries=0,
        **values,
    )
    repository = str(Path(__file__).parents[2])
    made.train_with("indiscreet.py", INDISCREET.format(repository=repository))
    return made


def with_password(root: Path) -> dict[str, list[str]]:
    """The files under a tracking root that have a password in them, by name, with these passwords."""
    words = (PASSWORD, OTHER, THIRD)
    found = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {
        str(path.relative_to(root)): said
        for path, content in found.items()
        if (said := [word for word in words if word.encode() in content])
    }


def test_nothing_that_an_experiment_leaves_has_a_password(experiment: Any) -> None:
    made = indiscreet(experiment)
    secrets = {"https_proxy": f"http://bob:{PASSWORD}@127.0.0.1:1", "MLFLOW_TRACKING_TOKEN": OTHER}
    done = made.run(**secrets)
    assert done.returncode == 3, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "http://bob:***@127.0.0.1:1" in said and "\x1b" not in said
    assert not any(word in said for word in (PASSWORD, OTHER, THIRD))
    left = with_password(made.root)
    assert all(Path(name).name == "attempt.json" and THIRD not in words for name, words in left.items()), left
    for run in made.attempts:  # its trainer needs it, and nobody else can read it
        file = made.root / "attempts" / run.info.run_id / "attempt.json"
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert "***" not in AttemptFile.read(file).config.trainer.parameters["data"]
        log = Path(made.client.download_artifacts(run.info.run_id, "trainer.log")).read_text(encoding="utf-8")
        assert "data from" in log and "\x1b" not in log
        assert "***" in evidence(run)[0]["detail"]["last line"]
    with sqlite3.connect(made.root / "mlflow.db") as store:
        dump = "\n".join(store.iterdump())
    assert not any(word in dump for word in (PASSWORD, OTHER, THIRD))


def test_an_experiment_goes_on_with_the_passwords_that_the_store_has_not(experiment: Any, tmp_path: Path) -> None:
    until = tmp_path / "go"
    made = indiscreet(experiment, parameters={"until": str(until)})
    process = made.start()
    made.wait_for_spooled(1, process)
    command = " ".join(psutil.Process(process.pid).cmdline())
    process.kill()
    process.wait()
    assert PASSWORD not in command
    until.touch()
    asked = made.refusal()
    assert "notify.command: its password is neither in the store nor under" in asked and THIRD not in asked
    done = made.resume("notify.command=[/bin/true]")
    assert done.returncode == 3, done.stdout + done.stderr
    data = {
        AttemptFile.read(made.root / "attempts" / run.info.run_id / "attempt.json").config.trainer.parameters["data"]
        for run in made.attempts
    }
    assert data == {f"postgresql://bob:{PASSWORD}@127.0.0.1/games", f"http://bob:{OTHER}@127.0.0.1/"}
    assert all(Path(name).name == "attempt.json" for name in with_password(made.root))


def test_the_command_to_go_on_has_none_and_says_where_it_belongs(experiment: Any) -> None:
    hint = resume_command("abc", TrackingSection(uri=f"http://alice:{PASSWORD}@127.0.0.1:1"))
    assert PASSWORD not in hint
    made = experiment(trainer__command=["true"])
    refused = made.refusal("tracking.uri=http://alice:***@127.0.0.1:1")
    assert "put the password in the place of ***" in refused


def test_notes_and_params_are_json_still(experiment: Any) -> None:
    made = indiscreet(experiment)
    assert made.run().returncode == 3
    parameters = json.loads(made.parent.data.params["trainer.parameters"])
    assert parameters == {"data": "postgresql://bob:***@127.0.0.1/games"}
    changed = json.loads(made.attempts[1].data.tags["ladder.diff"])
    assert "http://bob:***@127.0.0.1/" in json.dumps(changed)
