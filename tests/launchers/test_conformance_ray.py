"""Jobs of Ray's, by a small server that speaks its Jobs API: all that every launcher promises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.register_assert_rewrite("tests.launchers.conformance")
pytest.register_assert_rewrite("tests.launchers.conformance_remote")

from pipeline.launchers.engine import EngineAway, Refused, State  # noqa: E402
from pipeline.launchers.patience import Patience  # noqa: E402
from pipeline.launchers.ray import Ray, _state  # noqa: E402
from pipeline.launchers.remote import RemoteLauncher  # noqa: E402
from pipeline.launchers.remote_job import RemoteJob  # noqa: E402
from tests.launchers.conformance import ANSWERS, DAEMON, HIDDEN, PAUSE, ended, until_said  # noqa: E402
from tests.launchers.conformance_remote import RemoteConformance  # noqa: E402
from tests.launchers.fake_ray import FakeRay  # noqa: E402
from tests.processes.maker import eventually  # noqa: E402

QUICK = Patience(engine=0.1, folder=0.02, late=0.5, away=1.0, final=5.0)


@pytest.fixture(scope="class")
def ray() -> Iterator[FakeRay]:
    with contextlib.closing(FakeRay()) as ray:
        yield ray


@pytest.fixture(scope="class")
def launcher(ray: FakeRay) -> Iterator[RemoteLauncher]:
    with contextlib.closing(RemoteLauncher(Ray(ray.address, {}, 2.0), 30, 2.0, QUICK)) as launcher:
        yield launcher


class TestRay(RemoteConformance):
    """The Jobs API."""

    make_source = """
import atexit
from pipeline.launchers.ray import Ray
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from tests.launchers.fake_ray import FakeRay
launcher = RemoteLauncher(Ray(FakeRay().address, {}, 1.0), lease_seconds=1, grace_seconds=1,
                          patience=Patience(engine=0.1, folder=0.02))
"""

    def begun(self, launcher: RemoteLauncher, source: str, folder: Path) -> RemoteJob:
        job = self.start(launcher, source, folder)
        until_said(job, "ready")
        assert isinstance(job, RemoteJob)
        return job

    @pytest.mark.parametrize("daemon", [DAEMON, HIDDEN], ids=["plain", "hidden"])
    def test_close_leaves_no_process_and_is_harmless_twice(
        self, launcher: RemoteLauncher, ray: FakeRay, folder: Path, daemon: str
    ) -> None:
        """The jobs are this test's children, because the server is in its process."""
        job = self.start(launcher, daemon + PAUSE, folder)
        until_said(job, "ready")
        launcher.close()
        launcher.close()
        assert ended(job).detail == {"signal": "SIGKILL"} and not self.remains(folder)
        eventually(lambda: all(each.status() == psutil.STATUS_ZOMBIE for each in _children()))

    def test_it_waits_until_ray_has_a_place_for_it(self, launcher: RemoteLauncher, ray: FakeRay, folder: Path) -> None:
        ray.holds = True
        job = self.start(launcher, "print('ready')", folder)
        eventually(lambda: "not started yet" in (job.waiting or ""))
        assert job.wait(0) is None
        ray.holds = False
        assert ended(job).code == 0

    def test_one_that_waits_and_is_stopped_by_us_is_not_waited_for_and_never_runs(
        self, launcher: RemoteLauncher, ray: FakeRay, folder: Path
    ) -> None:
        ray.holds = True
        job = self.start(launcher, "print('ready')", folder)
        job.terminate()
        assert ended(job).detail == {"signal": "SIGTERM"}
        job.kill()
        assert job.id is not None and ray.jobs[job.id]["status"] == "PENDING" and not (folder / "launch.json").exists()
        ray.jobs[job.id].pop("_dropped")  # it would run
        ray.holds = False
        eventually(lambda: ray.get(f"/api/jobs/{job.id}")[1]["status"] in ("FAILED", "SUCCEEDED"))
        assert "ready" not in job.log.read_text()

    def test_what_a_person_stops_is_cancelled_and_has_our_grace(
        self, launcher: RemoteLauncher, ray: FakeRay, folder: Path
    ) -> None:
        job = self.begun(launcher, ANSWERS.format(then="sys.exit(130)"), folder)
        ray.post(f"/api/jobs/{job.id}/stop", {})
        found = ended(job)
        assert found.cancelled == f"ray job {job.id} was cancelled" and found.taken is None
        assert ray.asked[-1]["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "7"

    def test_a_job_whose_supervisor_died_was_taken_away_and_its_trainer_does_not_live_on(
        self, launcher: RemoteLauncher, ray: FakeRay, folder: Path
    ) -> None:
        job = self.begun(launcher, PAUSE, folder)
        assert job.id is not None
        ray.kill_supervisor(job.id)
        assert "its node has died" in (ended(job).taken or "") and self.remains(folder)
        job.kill()
        eventually(lambda: not self.remains(folder))

    def test_a_ray_that_is_away_holds_up_nothing(
        self, launcher: RemoteLauncher, ray: FakeRay, folder: Path, tmp_path: Path
    ) -> None:
        job = self.begun(launcher, ANSWERS.format(then="sys.exit(7)"), folder)
        ray.away = True
        late = self.start(launcher, "print('ready')", tmp_path / "late")
        assert "takes no job now" in (late.waiting or "")
        job.terminate()
        assert ended(job).code == 7
        ray.away = False
        assert ended(late).code == 0

    def test_what_an_attempt_asks_for_reaches_ray(self, ray: FakeRay, folder: Path) -> None:
        request = {"entrypoint_num_gpus": 1, "runtime_env": {"env_vars": {"A": "b,c"}}}
        with contextlib.closing(RemoteLauncher(Ray(ray.address, request, 2.0), 30, 2.0, QUICK)) as launcher:
            self.begun(launcher, PAUSE, folder).kill()
        assert ray.asked[-1]["entrypoint_num_gpus"] == 1 and ray.asked[-1]["runtime_env"]["env_vars"]["A"] == "b,c"
        with contextlib.closing(RemoteLauncher(Ray(ray.address, {"wrong": 1}, 2.0), 30, 2.0, QUICK)) as launcher:
            assert "wrong" in (ended(self.start(launcher, PAUSE, folder)).refused or "")


def _children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "launchers.warden" in " ".join(_command(each))]


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def test_the_verbs(tmp_path: Path) -> None:
    with contextlib.closing(FakeRay()) as ray:
        engine = Ray(f"{ray.address}/")
        assert engine.test() == f"Ray 2.60.0 answers at {ray.address}"
        assert engine.find("a") is None and engine.state("a").end == "unknown"
        ray.holds = True
        assert engine.submit("a", ["true"], tmp_path, tmp_path / "log") == "a"
        assert engine.submit("a", ["true"], tmp_path, tmp_path / "log") == "a" and len(ray.asked) == 1
        assert engine.find("a") == "a" and engine.state("a").phase == "queued"
        engine.cancel("a")
        engine.cancel("never known")
        ray.holds = False
        eventually(lambda: engine.state("a").phase == "ended")
        assert engine.state("a").end == "cancelled" and engine.find("a") is None
    with pytest.raises(EngineAway):
        engine.test()


def test_the_states_of_several_are_one_request(tmp_path: Path) -> None:
    with contextlib.closing(FakeRay()) as ray:
        ray.holds = True
        engine, paths, get = Ray(ray.address), [], ray.get
        ray.get = lambda path: (paths.append(path), get(path))[1]  # type: ignore[method-assign,func-returns-value]
        for name in ("a", "b", "c"):
            engine.submit(name, ["true"], tmp_path, tmp_path / "log")
        assert engine.states(["a", "c", "gone"]) == {"a": engine.state("a"), "c": engine.state("c")}
        assert paths == ["/api/jobs/", "/api/jobs/a", "/api/jobs/c"]
        ray.jobs |= {f"old{number}": ray.jobs["b"] for number in range(60)}
        assert set(engine.states(["a", "c"])) == {"a", "c"}
        assert not engine.states(["a", "c"]) and paths[3:] == ["/api/jobs/"]  # so long a list is not asked for again
        ray.get = lambda path: (404, "not found")  # type: ignore[method-assign]
        assert not Ray(ray.address).states(["a", "c"])
        ray.get = lambda path: (200, {"an": "object"})  # type: ignore[method-assign]
        assert not Ray(ray.address).states(["a", "c"])
        ray.away = True
        with pytest.raises(EngineAway):
            Ray(ray.address).states(["a", "c"])


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"status": "PENDING", "message": "m"}, State("queued", "m")),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, State("ended", "succeeded", end="done", code=0)),
        (
            {"status": "FAILED", "driver_exit_code": 3, "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR", "message": "m"},
            State("ended", "m", end="failed", code=3),
        ),
        ({"status": "FAILED", "driver_exit_code": 3, "message": "m"}, State("ended", "m", end="failed", code=3)),
        ({"status": "FAILED", "message": "the node died"}, State("ended", "the node died", end="taken")),
        (
            {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "message": "m"},
            State("ended", "m", end="taken"),
        ),
        (
            {"status": "FAILED", "message": "ray.exceptions.OutOfMemoryError"},
            State("ended", "out of memory", end="out_of_memory"),
        ),
    ],
)
def test_what_the_details_of_a_job_mean(said: dict[str, object], state: State) -> None:
    assert _state(said) == state


def test_another_server_at_the_address_is_no_ray(tmp_path: Path) -> None:
    with contextlib.closing(FakeRay()) as ray:
        ray.get = lambda path: (200, "<html>a login page</html>")  # type: ignore[method-assign]
        with pytest.raises(EngineAway, match="not as Ray does"):
            Ray(ray.address).test()
        ray.post = lambda path, body: (403, "forbidden")  # type: ignore[method-assign]
        with pytest.raises(Refused, match="forbidden"):
            Ray(ray.address).submit("a", ["true"], tmp_path, tmp_path / "log")
