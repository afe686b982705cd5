"""Ray as an engine: its Jobs REST API over plain HTTP, so Ray need not be installed where the orchestrator is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from pipeline.launchers.engine import End, EngineAway, Refused, State
from pipeline.secrets import learn, without_passwords

_ANSWER_SECONDS = 20.0
_MORE_GRACE = 5.0
"""Seconds that are added to the grace before Ray kills a job which it was asked to stop; its own default is 3."""
_OF_THE_COMMAND = ("JOB_ENTRYPOINT_COMMAND_ERROR", "JOB_ENTRYPOINT_COMMAND_START_ERROR", "RUNTIME_ENV_SETUP_FAILURE")
"""Types of errors that are the job's own. Others are Ray's: a node was lost, its supervisor died or never started."""
_MEMORY = re.compile(r"OutOfMemory|out of memory|memory usage threshold", re.IGNORECASE)
_EXISTS = re.compile(r"already exists")
_LONGEST = 300
_CROWD = 20
"""Ray lists every job that it has had. Where they are so many times those of this process, no list is asked for."""


class Ray:
    """The Ray whose dashboard is at this address.

    Args:
        request: fields of a submission, such as `entrypoint_num_gpus`.
        grace_seconds: between SIGTERM and SIGKILL.
    """

    name = "ray"

    def __init__(self, address: str, request: Mapping[str, Any] | None = None, grace_seconds: float = 8.0) -> None:
        learn(address)
        self.address, self._request = address.rstrip("/"), dict(request or {})
        self._grace = grace_seconds
        self._listed = 0
        """How many jobs the last list had."""

    def submit(self, name: str, command: Sequence[str], folder: Path, output: Path) -> str:
        given = self._request.get("runtime_env", {})
        waits = {"RAY_JOB_STOP_WAIT_TIME_S": str(round(self._grace + _MORE_GRACE))}
        body = {
            **self._request,
            "entrypoint": f"exec {shlex.join(command)} >> {shlex.quote(str(output))} 2>&1",
            "submission_id": name,
            "runtime_env": {**given, "env_vars": {**waits, **given.get("env_vars", {})}},
        }
        try:
            self._ask("POST", "/api/jobs/", body)
        except Refused as refused:
            if _EXISTS.search(str(refused)) is None:
                raise
        return name

    def state(self, job: str) -> State:
        try:
            found = self._ask("GET", f"/api/jobs/{job}")
        except Refused as refused:
            if refused.args[1:] == (HTTPStatus.NOT_FOUND,):
                return State("ended", why="Ray does not know it", end="unknown")
            raise EngineAway(str(refused)) from refused
        return _state(found if isinstance(found, dict) else {})

    def states(self, jobs: Sequence[str]) -> Mapping[str, State]:
        if self._listed > _CROWD * len(jobs):
            return {}
        try:
            listed = self._ask("GET", "/api/jobs/")
        except Refused:
            return {}
        found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        self._listed = len(found)
        known = {str(each.get("submission_id")): each for each in found if "status" in each}
        return {job: _state(known[job]) for job in jobs if job in known}

    def cancel(self, job: str) -> None:
        try:
            self._ask("POST", f"/api/jobs/{job}/stop", {})
        except Refused as refused:
            if refused.args[1:] != (HTTPStatus.NOT_FOUND,):
                raise EngineAway(str(refused)) from refused

    def find(self, name: str) -> str | None:
        return name if self.state(name).phase != "ended" else None

    def test(self) -> str:
        found = self._ask("GET", "/api/version")
        found = found if isinstance(found, dict) else {}
        return f"Ray {found.get('ray_version', '?')} answers at {without_passwords(self.address)}"

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer, as JSON tells it.

        Raises:
            EngineAway: there is none, or a web server answers in place of Ray.
            Refused: it says no. The second argument is the status.
        """
        try:
            answer = requests.request(method, f"{self.address}{path}", json=body, timeout=_ANSWER_SECONDS)
        except requests.RequestException as error:
            raise EngineAway(without_passwords(f"{self.address}: {type(error).__name__}")) from error
        text = " ".join(answer.text.split())
        if answer.ok:
            try:
                return answer.json()
            except ValueError as error:
                raise EngineAway(f"{without_passwords(self.address)} answers, and not as Ray does") from error
        words = without_passwords(text[-_LONGEST:]) or answer.reason
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and not _says_no(text):
            raise EngineAway(f"status {answer.status_code}: {words}")
        raise Refused(words, answer.status_code)


def _says_no(text: str) -> bool:
    """Whether an internal error of Ray's is about what was asked: it has no other status for a wrong request."""
    return bool(re.search(r"already exists|ValueError|TypeError|Failed to parse|InvalidArgument", text))


def _state(found: Mapping[str, Any]) -> State:
    """What the details of a job say."""
    status, message = str(found.get("status")), " ".join(str(found.get("message") or "").split())
    where = str((found.get("driver_info") or {}).get("node_ip_address") or "")
    if status == "PENDING":
        return State("queued", why=message[:_LONGEST], where=where)
    if status == "RUNNING":
        return State("running", where=where)
    code = found.get("driver_exit_code")
    end, why = _end(status, str(found.get("error_type") or ""), message, code)
    return State("ended", why=why, where=where, end=end, code=code if isinstance(code, int) else int(end != "done"))


def _end(status: str, error: str, message: str, code: object) -> tuple[End, str]:
    if status == "SUCCEEDED":
        return "done", "succeeded"
    if status == "STOPPED":
        return "cancelled", "stopped"
    if _MEMORY.search(message):
        return "out_of_memory", "out of memory"
    own = error in _OF_THE_COMMAND or (not error and code is not None)
    return ("failed" if own else "taken"), message[:_LONGEST] or error or status.lower()
