"""Slurm as an engine: sbatch, squeue and scancel, and sacct where it is there. No job is requeued by Slurm itself."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.launchers.engine import SUSPENDED, End, EngineAway, Refused, State
from pipeline.processes.environment import their_environment
from pipeline.processes.streams import plain

_ANSWER_SECONDS = 45.0
"""Slurm's commands try for some 20 seconds to reach a controller."""
_AWAY = re.compile(
    r"[Uu]nable to contact slurm controller|[Cc]onnect(ion)? (failure|refused|timed out)|[Tt]imed out|[Zz]ero [Bb]ytes"
    r"|[Ss]ocket|in standby mode|[Tt]emporarily|try again|backup controller|[Mm]unge|[Aa]uthentication"
    r"|Slurm database|slurmdbd|MaxSubmit|submit limit"
)
_FORGOTTEN = re.compile(r"Invalid job id")
_QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT",
           "SUSPENDED", "STOPPED")  # fmt: skip
_ENDS: Mapping[str, End] = {
    "COMPLETED": "done",
    "FAILED": "failed",
    "OUT_OF_MEMORY": "out_of_memory",
    "CANCELLED": "cancelled",
    "PREEMPTED": "taken",
    "NODE_FAIL": "taken",
    "TIMEOUT": "taken",
    "BOOT_FAIL": "taken",
    "DEADLINE": "taken",
    "LAUNCH_FAILED": "taken",
    "RECONFIG_FAIL": "taken",
    "REVOKED": "taken",
}
_WORDS = {
    "PREEMPTED": "preempted",
    "NODE_FAIL": "its node was lost",
    "TIMEOUT": "its time limit was reached",
    "BOOT_FAIL": "its node did not boot",
    "DEADLINE": "its deadline was reached",
    "CANCELLED": "cancelled",
    "OUT_OF_MEMORY": "out of memory",
}
_FIELDS = "State:40,NodeList:80,Reason:120,exit_code:20"
"""What squeue is asked to print of a job, and how wide."""
_BEFORE_THE_LIMIT = 20
"""Seconds that are added to the grace: before a time limit, Slurm may send the signal a little late."""


class Slurm:
    """The Slurm that the commands of this machine reach.

    Args:
        options: sbatch's own.
        grace_seconds: between SIGTERM and SIGKILL. So much, and a little more, before the time limit a signal comes.
    """

    name = "slurm"
    address = ""

    def __init__(self, options: Sequence[str] = (), grace_seconds: float = 8.0) -> None:
        self._options, self._grace = tuple(options), grace_seconds

    def submit(self, name: str, command: Sequence[str], folder: Path, output: Path) -> str:
        own = [
            *("--parsable", "--no-requeue", "--export=ALL", f"--job-name={name}", f"--chdir={folder}"),
            *(f"--output={_literal(output)}", "--open-mode=append"),
        ]
        done = self._run([*self._sbatch(), *own], given=_script(command))
        found = re.match(r"\s*(\d+)", done)
        if found is None:
            raise EngineAway(f"sbatch says {done.strip()[:200]!r}, which is no job id")
        return found[1]

    def state(self, job: str) -> State:
        try:
            said = self._run(["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--Format={_FIELDS}"])
        except Refused as error:
            if _FORGOTTEN.search(str(error)) is None:
                raise EngineAway(str(error)) from error
            return self._accounted(job)
        if not said.strip():
            return self._accounted(job)
        return _state_in(said.splitlines()[0])

    def states(self, jobs: Sequence[str]) -> Mapping[str, State]:
        """squeue is silent about those that the controller has forgotten, and about another user's.

        `--me` spares the controller a list of everybody's jobs, which several ids are searched in otherwise.
        """
        wanted = ",".join(dict.fromkeys(jobs))
        try:
            said = self._run(
                ["squeue", "--me", "--noheader", "--states=all", f"--jobs={wanted}", f"--Format=JobID:30,{_FIELDS}"]
            )
        except Refused:  # such as by an old Slurm, or for one job among them
            return {}
        found: dict[str, State] = {}
        for line in said.splitlines():
            found.setdefault(line[:30].strip(), _state_in(line[30:]))
        return found

    def cancel(self, job: str) -> None:
        try:
            self._run(["scancel", "--quiet", job])
        except Refused as error:
            if _FORGOTTEN.search(str(error)) is None and "already complet" not in str(error):
                raise EngineAway(str(error)) from error

    def find(self, name: str) -> str | None:
        try:
            said = self._run(["squeue", "--noheader", f"--name={name}", "--Format=JobID:30"])
        except Refused as error:
            raise EngineAway(str(error)) from error
        return said.split()[0] if said.split() else None

    def test(self) -> str:
        """What Slurm says of a job with these options, without one.

        Raises:
            Refused: it would not take it.
            EngineAway: it does not answer.
        """
        done = self._run([*self._sbatch(), "--test-only", "--export=ALL"], given=_script(["true"]), says=True)
        return done.strip().removeprefix("sbatch: ")

    def _sbatch(self) -> list[str]:
        signalled = any(option.startswith("--signal") for option in self._options)
        before = round(self._grace + _BEFORE_THE_LIMIT)
        return ["sbatch", *self._options, *([] if signalled else [f"--signal=B:USR1@{before}"])]

    def _accounted(self, job: str) -> State:
        """What the accounting says of a job that the controller has forgotten."""
        if shutil.which("sacct") is not None:
            try:
                said = self._run(
                    [
                        "sacct",
                        "--noheader",
                        "--parsable2",
                        "-X",
                        f"--jobs={job}",
                        "--format=State,NodeList,Reason,ExitCode",
                    ]
                )
            except (Refused, EngineAway):  # there may be no accounting
                said = ""
            fields = said.splitlines()[0].split("|") if said.strip() else []
            if len(fields) == 4:
                return _state(*fields)
        return State("ended", why="Slurm does not know it any more", end="unknown")

    def _run(self, command: Sequence[str], given: str = "", *, says: bool = False) -> str:
        """What a command prints; `says`: on standard error.

        Raises:
            EngineAway: the controller does not answer, or the command is missing.
            Refused: it says no.
        """
        try:
            done = _done(command, given)
        except FileNotFoundError as error:
            raise Refused(f"{command[0]}: there is no such command on this machine") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineAway(f"{command[0]}: {error}") from error
        if done.returncode == 0:
            return done.stderr if says else done.stdout
        words = " ".join(plain(done.stderr).replace("sbatch: error:", "").split())[:400]
        words = words or f"{command[0]} ended with exit code {done.returncode}"
        raise (EngineAway if _AWAY.search(words) and "Invalid" not in words else Refused)(words)


def _done(command: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
    """What a command has said. One that takes too long is killed with all that it has started: it may be a wrapper.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it has taken too long.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=_environment(),
        start_new_session=True,  # Ctrl-C is not for it
    ) as process:
        try:
            said, told = process.communicate(given, _ANSWER_SECONDS)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(command, process.returncode, said, told)


def _state_in(line: str) -> State:
    """The state in a line of squeue's with these fields."""
    return _state(line[:40].strip(), line[40:120].strip(), line[120:240].strip(), line[240:].strip())


def _state(state: str, where: str, why: str, exit_code: str) -> State:
    """A state of Slurm's, such as `CANCELLED by 0`, and an exit code, such as `3:0` or `0:9`."""
    word = (state.split() or ["?"])[0].rstrip("+")
    where = "" if where in ("None", "(null)", "None assigned", "N/A") else where
    why = "" if why in ("None", "(null)") else why
    if word in _QUEUED:
        return State("queued", why=SUSPENDED if word in ("SUSPENDED", "STOPPED") else why, where=where)
    if word in _ENDS:
        by = f" by user {state.split()[-1]}" if " by " in state else ""
        words = f"{_WORDS.get(word, word.lower().replace('_', ' '))}{by}"
        return State("ended", why=words, where=where, end=_ENDS[word], code=_code(exit_code, _ENDS[word]))
    return State("running", why=word.lower(), where=where)


def _code(text: str, end: End) -> int:
    """The exit code: negative for a signal. squeue shows the wait status, or `code:signal`, by its version."""
    code, _, number = text.partition(":")
    if not code.isdecimal():
        return 0 if end == "done" else 1
    if number.isdecimal():
        return -int(number) if int(number) else int(code)
    status = int(code)
    return os.waitstatus_to_exitcode(status) if status < 1 << 16 else 1


def _script(command: Sequence[str]) -> str:
    return f"#!/bin/sh\nexec {shlex.join(command)}\n"


def _literal(path: Path) -> str:
    """A path in which Slurm replaces nothing."""
    return str(path).replace("\\", "\\\\").replace("%", "%%")


def _environment() -> dict[str, str]:
    """What Slurm's commands get. The job starts with it, and the trainer's own comes by the attempt's folder.

    A submitter that is itself a job of Slurm's has the options of that job in its environment, which are not meant.
    """
    theirs = their_environment()
    names = (
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_ALL",
        "SLURM_CONF",
        "SLURM_CLUSTERS",
        "LD_LIBRARY_PATH",
    )
    found = {name: theirs[name] for name in names if name in theirs}
    if "SLURM_JOB_ID" not in theirs:  # defaults that a user or a site sets, such as the account
        found |= {name: value for name, value in theirs.items() if name.startswith("SBATCH_")}
    return {**found, "SLURM_TIME_FORMAT": "standard"}
