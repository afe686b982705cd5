"""A small server that speaks Ray's Jobs API, and runs entrypoints in a shell of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_WAIT_SECONDS = 3.0
"""Ray's own time between SIGTERM and SIGKILL, where the job's environment names no other."""


class FakeRay:
    """`holds`: jobs wait. `away`: it answers nothing."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.holds = self.away = False
        self._lock = threading.RLock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*fake.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                self._answer(*fake.post(self.path, body))

            def _answer(self, status: int, said: Any) -> None:
                if fake.away:
                    self.close_connection = True
                    return
                text = said if isinstance(said, str) else json.dumps(said)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._closed = threading.Event()
        self._starter = threading.Thread(target=self._start_all, daemon=True)
        self._starter.start()

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/api/version":
            return 200, {"version": "4", "ray_version": "2.60.0"}
        with self._lock:
            if path == "/api/jobs/":
                driver = {"type": "DRIVER", "submission_id": None, "job_id": "01000000", "status": "RUNNING"}
                return 200, [driver, *(self._shown(job) for job in self.jobs.values())]
            job = self.jobs.get(path.rpartition("/")[2])
            return (404, "Job does not exist") if job is None else (200, self._shown(job))

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        with self._lock:
            if path.endswith("/stop"):
                return self._stop(path.split("/")[-2])
            known = {"entrypoint", "submission_id", "runtime_env", "metadata", "entrypoint_num_cpus",
                     "entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources"}  # fmt: skip
            if unknown := set(body) - known:
                return 400, f"Failed to parse: TypeError: unexpected keyword {unknown}"
            if body["submission_id"] in self.jobs:
                return 500, f"Traceback … ValueError: Job with submission_id {body['submission_id']} already exists."
            self.asked.append(dict(body))
            self.jobs[body["submission_id"]] = {
                "type": "SUBMISSION",
                "submission_id": body["submission_id"],
                "status": "PENDING",
                "message": "Job has not started yet.",
                "error_type": None,
                "driver_exit_code": None,
                "driver_info": None,
                "_body": body,
            }
            return 200, {"job_id": body["submission_id"], "submission_id": body["submission_id"]}

    def kill_supervisor(self, job: str) -> None:
        """The job's process lives on, and Ray says that the job has failed."""
        with self._lock:
            self.jobs[job] |= {
                "status": "FAILED",
                "error_type": "JOB_SUPERVISOR_ACTOR_DIED",
                "message": "The actor died because its node has died.",
            }

    def close(self) -> None:
        self._closed.set()
        for job in self.jobs.values():
            self._signal(job, signal.SIGKILL)
        self._server.shutdown()
        self._server.server_close()

    def _start_all(self) -> None:
        while not self._closed.wait(0.02):
            with self._lock:
                for job in self.jobs.values():
                    if job["status"] == "PENDING" and not self.holds and job.get("_dropped"):
                        job |= {"status": "STOPPED", "message": "Job was intentionally stopped."}
                    elif job["status"] == "PENDING" and not self.holds:
                        environment = {**_bare(), **job["_body"]["runtime_env"].get("env_vars", {})}
                        job["_process"] = subprocess.Popen(
                            job["_body"]["entrypoint"], shell=True, env=environment, start_new_session=True, cwd="/"
                        )
                        job |= {"status": "RUNNING", "message": "Job is currently running.",
                                "driver_info": {"node_ip_address": "127.0.0.1"}}  # fmt: skip
                    self._look(job)

    def _shown(self, job: dict[str, Any]) -> dict[str, Any]:
        self._look(job)
        return {key: value for key, value in job.items() if not key.startswith("_")}

    def _look(self, job: dict[str, Any]) -> None:
        process = job.get("_process")
        if process is None or job["status"] != "RUNNING":
            return
        if (code := process.poll()) is None:
            if "_kill_at" in job and time.monotonic() > job["_kill_at"]:
                self._signal(job, signal.SIGKILL)
            return
        if "_kill_at" in job:
            job |= {"status": "STOPPED", "message": "Job was intentionally stopped."}
        elif code == 0:
            job |= {"status": "SUCCEEDED", "message": "Job finished successfully.", "driver_exit_code": 0}
        else:
            job |= {"status": "FAILED", "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR", "driver_exit_code": code,
                    "message": f"Job entrypoint command failed with exit code {code}"}  # fmt: skip

    def _stop(self, name: str) -> tuple[int, Any]:
        job = self.jobs.get(name)
        if job is None:
            return 404, "Job does not exist"
        if job["status"] == "PENDING":
            job["_dropped"] = True  # Ray hears of it when the job has a place
        elif job["status"] == "RUNNING":
            wait = float(job["_body"]["runtime_env"]["env_vars"].get("RAY_JOB_STOP_WAIT_TIME_S", _WAIT_SECONDS))
            job["_kill_at"] = time.monotonic() + wait
            self._signal(job, signal.SIGTERM)
        return 200, {"stopped": True}

    def _signal(self, job: dict[str, Any], number: int) -> None:
        if (process := job.get("_process")) is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, number)


def _bare() -> dict[str, str]:
    """What a job of Ray's has in its environment: the node's, and not the submitter's."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
