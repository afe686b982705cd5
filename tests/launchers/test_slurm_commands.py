"""What Slurm's commands say, and what it means. The commands are scripts here; a real Slurm has its own tests."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from pipeline.launchers import slurm
from pipeline.launchers.engine import EngineAway, Refused, State
from pipeline.launchers.slurm import Slurm, _state
from tests.processes.maker import eventually, lives


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands, the only one on the path beside the system's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    return folder


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (("PENDING", "", "Priority", "0"), State("queued", "Priority")),
        (("CONFIGURING", "n1", "None", "0"), State("queued", "", "n1")),
        (("SUSPENDED", "n1", "None", "0"), State("queued", "suspended", "n1")),
        (("RUNNING", "n1", "None", "0"), State("running", "running", "n1")),
        (("COMPLETING", "n1", "None", "0"), State("running", "completing", "n1")),
        (("COMPLETED", "n1", "None", "0:0"), State("ended", "completed", "n1", "done", 0)),
        (("FAILED", "n1", "NonZeroExitCode", "3:0"), State("ended", "failed", "n1", "failed", 3)),
        (("FAILED", "n1", "NonZeroExitCode", "768"), State("ended", "failed", "n1", "failed", 3)),
        (("FAILED", "n1", "RaisedSignal:9", "0:9"), State("ended", "failed", "n1", "failed", -9)),
        (
            ("CANCELLED by 1000", "None assigned", "", "0:0"),
            State("ended", "cancelled by user 1000", "", "cancelled", 0),
        ),
        (("CANCELLED+", "n1", "", "0:15"), State("ended", "cancelled", "n1", "cancelled", -15)),
        (("PREEMPTED", "n1", "", "0:0"), State("ended", "preempted", "n1", "taken", 0)),
        (("NODE_FAIL", "n1", "", "1:0"), State("ended", "its node was lost", "n1", "taken", 1)),
        (("TIMEOUT", "n1", "", "0:1"), State("ended", "its time limit was reached", "n1", "taken", -1)),
        (("OUT_OF_MEMORY", "n1", "", "0:125"), State("ended", "out of memory", "n1", "out_of_memory", -125)),
        (("A_STATE_OF_TOMORROW", "n1", "", "0"), State("running", "a_state_of_tomorrow", "n1")),
    ],
)
def test_states(said: tuple[str, str, str, str], state: State) -> None:
    assert _state(*said) == state


def test_a_job_that_the_controller_has_forgotten_is_looked_up_where_there_is_accounting(commands: Path) -> None:
    command(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert Slurm().state("7").end == "unknown"
    command(commands, "sacct", "echo 'CANCELLED by 0|n2|None|0:0'")
    assert Slurm().state("7") == State("ended", "cancelled by user 0", "n2", "cancelled", 0)
    command(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert Slurm().state("7").end == "unknown"


def line(job: str, state: str, node: str, why: str, code: str) -> str:
    return f"{job:<30}{state:<40}{node:<80}{why:<120}{code:<20}"


def test_the_states_of_several_are_one_command(commands: Path, tmp_path: Path) -> None:
    said = [line("7", "RUNNING", "n1", "None", "0"), line("9", "FAILED", "n2", "NonZeroExitCode", "3:0")]
    (tmp_path / "said").write_text("\n".join(said) + "\n")
    command(commands, "squeue", f'echo "$@" >> {tmp_path}/words; cat {tmp_path}/said')
    states = Slurm().states(["7", "8", "9", "7"])
    assert states == {"7": State("running", "running", "n1"), "9": State("ended", "failed", "n2", "failed", 3)}
    (words,) = (tmp_path / "words").read_text().splitlines()
    assert "--me" in words and "--states=all" in words and "--jobs=7,8,9 " in words


def test_several_that_squeue_says_nothing_of_are_left_out(commands: Path) -> None:
    command(commands, "squeue", "exit 0")
    assert Slurm().states(["7", "8"]) == {}
    command(commands, "squeue", "echo \"squeue: unrecognized option '--me'\" >&2; exit 1")
    assert Slurm().states(["7", "8"]) == {}
    command(commands, "squeue", "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(EngineAway):
        Slurm().states(["7", "8"])


@pytest.mark.parametrize(
    "words",
    [
        "Unable to contact slurm controller (connect failure)",
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size)",
        "QOSMaxSubmitJobPerUserLimit",
    ],
)
def test_what_may_pass_is_asked_again(commands: Path, tmp_path: Path, words: str) -> None:
    command(commands, "sbatch", f'echo "sbatch: error: {words}" >&2; exit 1')
    with pytest.raises(EngineAway):
        Slurm().submit("name", ["true"], tmp_path, tmp_path / "log")


@pytest.mark.parametrize(
    "words", ["invalid partition specified: nope", "Requested node configuration is not available", "Invalid account"]
)
def test_what_does_not_pass_is_refused(commands: Path, tmp_path: Path, words: str) -> None:
    command(commands, "sbatch", f'echo "sbatch: error: {words}" >&2; exit 1')
    with pytest.raises(Refused, match=words):
        Slurm().submit("name", ["true"], tmp_path, tmp_path / "log")


def test_a_command_that_does_not_answer_is_ended_with_what_it_has_started(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a site's command is a wrapper around Slurm's, that one has the pipes open when the wrapper is dead."""
    monkeypatch.setattr(slurm, "_ANSWER_SECONDS", 0.3)
    command(commands, "squeue", f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    began = time.monotonic()
    with pytest.raises(EngineAway, match="timed out"):
        Slurm().state("7")
    assert time.monotonic() - began < 10
    eventually(lambda: not lives(int((tmp_path / "pid").read_text())))


def test_a_machine_without_slurm(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(Refused, match="sbatch: there is no such command on this machine"):
        Slurm().test()


def test_what_sbatch_is_given(commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps = f'printf "%s\\n" "$@" > {tmp_path}/words; cat > {tmp_path}/script; env > {tmp_path}/env; echo 12'
    command(commands, "sbatch", keeps)
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    monkeypatch.setenv("PASSWORD", "tell-nobody")
    slurm = Slurm(("--partition=gpu", "--requeue"), grace_seconds=8)
    assert slurm.submit("name", ["a b", "c'd"], tmp_path, tmp_path / "100%.log") == "12"
    words = (tmp_path / "words").read_text().splitlines()
    assert words.index("--no-requeue") > words.index("--requeue") and "--signal=B:USR1@28" in words
    assert f"--output={tmp_path}/100%%.log" in words
    assert (tmp_path / "script").read_text() == "#!/bin/sh\nexec 'a b' 'c'\"'\"'d'\n"
    environment = (tmp_path / "env").read_text()
    assert "SLURM_CONF=/etc/slurm.conf" in environment and "SBATCH_ACCOUNT=lab" in environment
    assert "tell-nobody" not in environment
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")
    Slurm(("--signal=USR2@300",)).submit("name", ["true"], tmp_path, tmp_path / "log")
    assert "SBATCH_ACCOUNT" not in (tmp_path / "env").read_text() and "SLURM_MEM" not in (tmp_path / "env").read_text()
    assert not [word for word in (tmp_path / "words").read_text().splitlines() if word.startswith("--signal=B")]
