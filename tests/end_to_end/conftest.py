"""Real processes: `ladder` as a person starts it, against a real store in a folder of the test's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks.tracking_server import TrackingServer, why_not
from fallbacks.ladder import End
from pipeline.attempt.spool import Spool
from pipeline.cli import main
from pipeline.commands.turns import callbacks_for
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.experiment_file import load_experiment
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from tests.conftest import SMALL
from tests.end_to_end import forked
from tests.end_to_end.here import HereLauncher

pytest.register_assert_rewrite("tests.end_to_end.study")  # it asserts for others, who want to read what was compared

REPOSITORY = Path(__file__).parent.parent.parent
LIGHT = [sys.executable, str(Path(__file__).parent / "light.py")]
"""`trainer.command`: a trainer that loads nothing."""


def own_environment() -> dict[str, str]:
    """This process's, without what MLflow would read there: a person's store is not for tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} → {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


@dataclass
class Experiment:
    """An experiment's file in a folder, and everything that it leaves behind."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    server: str | None = None
    """Address of a tracking server; None: the SQLite file under the root."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.root = self.folder / "root"
        self.orchestrators: list[subprocess.Popen[str]] = []
        self.scratch = self.folder / "scratch"  # of the whole machine, as far as the experiment knows
        self.file = self.folder / "experiment.yaml"
        self.file.write_text(
            yaml.safe_dump(nested({"experiment.name": "small", "health.poll_seconds": 0.3, **SMALL, **self.values}))
        )

    def train_with(self, name: str, script: str, **values: Any) -> None:
        """A script of this name is the trainer, run by Python or, if it is named `.sh`, by bash; and other values."""
        path = self.folder / name
        path.write_text(script)
        self.values["trainer.command"] = ["bash" if path.suffix == ".sh" else sys.executable, str(path)]
        self.values |= {key.replace("__", "."): value for key, value in values.items()}
        self.__post_init__()

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "pipeline", "run", str(self.file), f"tracking.root={self.root}"]

    def resume_command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline", "resume", *words, f"tracking.root={self.root}"]

    @property
    def environment(self) -> dict[str, str]:
        self.scratch.mkdir(exist_ok=True)
        where = {"MLFLOW_TRACKING_URI": self.server} if self.server else {}
        return {
            **own_environment(),
            **where,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONWARNINGS": "ignore",
            "TMPDIR": str(self.scratch),
            "HOME": str(self.scratch),
        }

    def run(self, timeout: float = 200, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._complete(self.command, timeout, environment)

    def run_as_a_person(self, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        """A process that has imported nothing."""
        return subprocess.run(
            self.command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout
        )

    def run_here(self) -> End:
        """In this process, trainer and all."""
        config = load_experiment(self.file, [f"tracking.root={self.root}"])
        with self._environment_here():
            store = Store(self.server or default_uri(self.root), self.root)
            return Orchestrator(config, store, HereLauncher(), callbacks_for(config, store)).run()

    def heard(self, *words: str) -> str:
        """What a command that ends well says, said by this process."""
        with self._environment_here(), contextlib.redirect_stdout(io.StringIO()) as said:
            assert main([*words, f"tracking.root={self.root}"]) == 0
        return said.getvalue()

    def refusal(self, *words: str) -> str:
        """The one line with which `ladder resume` refuses to do anything, said by this process."""
        with self._environment_here(), contextlib.redirect_stderr(io.StringIO()) as said:
            assert main(self.resume_command(*words)[3:]) == 2
        lines = said.getvalue().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    @contextlib.contextmanager
    def _environment_here(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in list(os.environ):
                if name.startswith("MLFLOW_TRACKING"):  # others this program has set, of which it reads only once
                    patch.delenv(name)
            if self.server:
                patch.setenv("MLFLOW_TRACKING_URI", self.server)
            patch.setenv("MPLCONFIGDIR", str(self.scratch / "matplotlib"))
            yield

    def resume(self, *words: str, timeout: float = 200, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._complete(self.resume_command(*words), timeout, environment)

    def _complete(
        self, command: list[str], timeout: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return forked.complete(command, cwd=self.folder, env=self.environment | environment, timeout=timeout)

    def ladder(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Any other command."""
        return self._complete([sys.executable, "-m", "pipeline", *words], 100, {})

    def start(
        self,
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
        stderr: int = subprocess.STDOUT,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Forked; with further options of `subprocess.Popen`, a process that has imported nothing."""
        command, env = command or self.command, env or self.environment
        process: Any
        if options:
            usual = {"stdout": subprocess.PIPE, "stderr": stderr, "text": True}
            process = subprocess.Popen(command, cwd=self.folder, env=env, **{**usual, **options})
        else:
            process = forked.start(command, cwd=self.folder, env=env, stderr=stderr)
        self.orchestrators.append(process)
        return process  # type: ignore[no-any-return]

    # What it left behind

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.server or f"sqlite:///{self.root / 'mlflow.db'}")

    @property
    def has_store(self) -> bool:
        """Whether there is anything to ask; asking an SQLite store would make one."""
        file = Path((self.server or f"sqlite:///{self.root / 'mlflow.db'}").removeprefix("sqlite:///"))
        return str(self.server).startswith("http") or file.exists()

    def runs(self) -> list[Run]:
        ids = [each.experiment_id for each in self.client.search_experiments()]
        return [run for run in self.client.search_runs(ids) if "ladder.kind" in run.data.tags]

    @property
    def parent(self) -> Run:
        (parent,) = (run for run in self.runs() if run.data.tags["ladder.kind"] == "experiment")
        return parent

    @property
    def attempts(self) -> list[Run]:
        found = [run for run in self.runs() if run.data.tags["ladder.kind"] == "attempt"]
        return sorted(found, key=lambda run: int(run.data.tags["ladder.attempt"]))

    def trainers(self) -> list[psutil.Process]:
        """Processes that are still at work on an attempt of this experiment."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("LADDER_ATTEMPT", "").startswith(str(self.root))
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def worker(self) -> psutil.Process:
        """The process that a trainer with two workers has beside its own."""
        (found,) = (each for each in self.trainers() if each.name().startswith("worker"))
        return found

    def spooled(self) -> int:
        """Updates that the only attempt has reported, wherever they are."""
        (folder,) = (self.root / "attempts").glob("*")
        reports, _ = Spool(folder).read(0)
        return sum("update" in each.metrics for each in reports)

    def wait_for_spooled(self, count: int, process: subprocess.Popen[str], seconds: float = 90) -> None:
        """Until the only attempt has reported so many updates, whether the store has them or not: at once."""
        until = time.monotonic() + seconds
        while not list((self.root / "attempts").glob("*")) or self.spooled() < count:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)

    def wait_for_updates(self, count: int, process: subprocess.Popen[str], seconds: float = 120) -> None:
        """Until the present attempt has logged so many updates."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            if self.has_store:
                attempts = self.attempts if self.runs() else []
                if attempts and attempts[-1].data.metrics.get("update", 0) >= count:
                    return
            time.sleep(0.3)
        raise AssertionError("no updates came")


def pytest_sessionfinish() -> None:
    forked.close()


@pytest.fixture(scope="session")
def tracking_server() -> Iterator[TrackingServer]:
    """PostgreSQL behind `mlflow server`."""
    if (missing := why_not()) is not None:
        pytest.skip(missing)
    server = TrackingServer()
    yield server
    server.close()


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str | None:
    """Where this test's experiments are: None for SQLite, or the address of a server with nothing in it.

    A test that should pass on both is parametrised with `ON_BOTH`; `--store server` takes all others there too.
    """
    kind = getattr(request, "param", None) or request.config.getoption("--store")
    if kind == "sqlite":
        return None
    server: TrackingServer = request.getfixturevalue("tracking_server")
    client = MlflowClient(tracking_uri=server.uri)
    for each in client.search_experiments():
        if each.name != "Default":
            client.rename_experiment(each.experiment_id, f"{each.name} {each.experiment_id}")
            client.delete_experiment(each.experiment_id)
    return server.uri


ON_BOTH = pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("server", marks=pytest.mark.xdist_group("server"))], indirect=True
)


@pytest.fixture
def experiment(tmp_path: Path, store: str | None, empty_database: Path) -> Iterator[Any]:
    """Makes experiments in this test's folder; ends what they may have left running."""
    made: list[Experiment] = []

    def make(*, root_there: bool = True, **values: Any) -> Experiment:
        each = Experiment(tmp_path, {key.replace("__", "."): value for key, value in values.items()}, store)
        made.append(each)
        if root_there and store is None and not each.root.exists():
            each.root.mkdir()
            shutil.copy(empty_database, each.root)
        return each

    yield make
    for each in made:
        for process in (*each.orchestrators, *each.trainers()):
            process.kill()


def evidence(run: Run) -> list[dict[str, Any]]:
    return json.loads(run.data.tags["ladder.evidence"])  # type: ignore[no-any-return]
