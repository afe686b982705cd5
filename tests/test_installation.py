"""What one installs without the extras watches any training: every command works without torch, NetHack and Optuna."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from tests.end_to_end.conftest import own_environment

REPOSITORY = Path(__file__).parent.parent
EXTRAS = {"torch", "torch-geometric", "entmax", "gymnasium", "nle", "optuna"}
TRAINER = """
import json, os, pathlib, time
spool = pathlib.Path(os.environ["LADDER_ATTEMPT"]).parent / "metrics.jsonl"
for step in range(1, 31):
    with spool.open("a") as file:
        print(json.dumps({"time": int(time.time() * 1000), "step": step, "metrics": {"loss": 1 / step}}), file=file)
"""
EXPERIMENT = """
experiment: {name: elsewhere}
trainer: {command: [python, train.py]}
ladder: {rungs: [v3]}
health: {poll_seconds: 0.3}
"""


def declared() -> dict[str, list[Requirement]]:
    """The requirements in pyproject.toml: those of everybody under "", those of each extra under its name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {name: [Requirement(each) for each in words] for name, words in lists.items()}


NOT_LOCKED = {"ray"}
"""Extras that `make setup` leaves out: 320 MB for a few tests."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_all_that_they_need(requirements: list[Requirement]) -> set[str]:
    """The names of these packages and of all that they require, as they are installed here."""
    found: set[str] = set()
    waiting = [each.name for each in requirements]
    while waiting:
        name = canonical(waiting.pop())
        if name not in found:
            found.add(name)
            needed = [Requirement(each) for each in importlib.metadata.requires(name) or []]
            waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that has the packages of everybody, and no extra."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in with_all_that_they_need(declared()[""]):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {".."}:
            if not (packages / top).exists():
                (packages / top).symlink_to(str(distribution.locate_file(top)))
    (packages / "ladder.pth").write_text(str(REPOSITORY), encoding="utf-8")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def other_python(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter whose MLflow says that it is another version."""
    folder = tmp_path_factory.mktemp("other")
    venv.create(folder, symlinks=True)
    (packages,), (theirs,) = folder.glob("lib/python*/site-packages"), python.parent.parent.glob("lib/*/site-packages")
    for path in theirs.iterdir():
        if path.name.startswith("mlflow-"):
            (packages / "mlflow-2.0.0.dist-info").mkdir()
            told = (path / "METADATA").read_text(encoding="utf-8")
            told = re.sub(r"^Version: .*", "Version: 2.0.0", told, count=1, flags=re.M)
            (packages / "mlflow-2.0.0.dist-info" / "METADATA").write_text(told, encoding="utf-8")
        elif not (packages / path.name).exists() and path.name != "ladder.pth":
            (packages / path.name).symlink_to(path.resolve())
    return folder / "bin" / "python"


def test_extras_are_no_requirement_of_everybody() -> None:
    assert not EXTRAS & with_all_that_they_need(declared()[""])
    in_extras = {canonical(each.name) for name in ("nethack", "tune") for each in declared()[name]}
    assert in_extras >= EXTRAS


def test_what_is_locked_is_what_is_allowed() -> None:
    locked = dict(
        re.findall(r"^([\w.-]+)==([\w.+]+)", (REPOSITORY / "requirements.lock").read_text(encoding="utf-8"), re.M)
    )
    versions = {canonical(name): version for name, version in locked.items()}
    of_setup = {extra: requirements for extra, requirements in declared().items() if extra not in NOT_LOCKED}
    for requirements in of_setup.values():
        for each in requirements:
            assert each.specifier.contains(versions[canonical(each.name)]), each


BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def test_the_wheel_has_every_file_of_the_packages(tmp_path: Path) -> None:
    """The page's templates too, and what the trainer's Python is given."""
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("pipeline", "fallbacks"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = {
        str(path.relative_to(tmp_path))
        for name in ("pipeline", "fallbacks")
        for path in tmp_path.glob(f"{name}/**/*.*")
    }
    subprocess.run([sys.executable, "-c", BUILD, "."], cwd=tmp_path, capture_output=True, timeout=120, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert files <= {*zipfile.ZipFile(wheel).namelist()} and "pipeline/compare/templates/page.html.j2" in files


COMMANDS = """
import os, sys
from pipeline.cli import main
try:
    import nle
    sys.exit("this is not an installation without NetHack")
except ImportError:
    assert main(["run", "x.yaml"]) == 0
(attempt,) = os.listdir("mlruns/attempts")
assert main(["status"]) == 0
assert main(["compare", "--out", "page"]) == 0
assert main(["diagnose", attempt]) == 0
assert main(["check", "x.yaml"]) in (0, 2)
assert main(["resume"]) == 0  # there is nothing to resume
"""


def test_every_command_works_without_the_extras(python: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINER, encoding="utf-8")
    (tmp_path / "x.yaml").write_text(EXPERIMENT, encoding="utf-8")
    done = subprocess.run([python, "-c", COMMANDS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to resume" in done.stdout and (tmp_path / "page" / "compare.html").exists()


def test_what_needs_an_extra_says_so(python: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("experiment: {name: own}\n", encoding="utf-8")
    for words, extra in ((("run", "x.yaml"), "ladder[nethack]"), (("tune", "x.yaml"), "ladder[tune]")):
        command = [python, "-m", "pipeline", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and extra in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.yaml"]


OTHER_TRAINER = """
import mlflow, os
assert os.environ["MLFLOW_TRACKING_URI"].startswith("http://127.0.0.1:"), os.environ["MLFLOW_TRACKING_URI"]
with mlflow.start_run():
    for step in range(1, 6):
        mlflow.log_metric("loss", 1 / step, step=step)
"""


def test_trainer_with_another_mlflow_speaks_to_a_server(other_python: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(OTHER_TRAINER, encoding="utf-8")
    (tmp_path / "x.yaml").write_text(EXPERIMENT.replace("[python,", f"['{other_python}',"), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline", "run", "x.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, env=own_environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "the trainer's MLflow is 2.0.0" in ran.stdout, ran.stdout + ran.stderr
    assert not [
        each
        for each in psutil.process_iter(["cmdline"])
        if f"{tmp_path}/mlruns" in " ".join(each.info["cmdline"] or ())
    ]
