"""What one installs without the extras watches any training: every command works without torch, NetHack and Optuna."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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


def test_extras_are_no_requirement_of_everybody() -> None:
    assert not EXTRAS & with_all_that_they_need(declared()[""])
    in_extras = {canonical(each.name) for name in ("nethack", "tune") for each in declared()[name]}
    assert in_extras >= EXTRAS


def test_what_is_locked_is_what_is_allowed() -> None:
    locked = dict(
        re.findall(r"^([\w.-]+)==([\w.+]+)", (REPOSITORY / "requirements.lock").read_text(encoding="utf-8"), re.M)
    )
    versions = {canonical(name): version for name, version in locked.items()}
    for requirements in declared().values():
        for each in requirements:
            assert each.specifier.contains(versions[canonical(each.name)]), each


def test_every_command_works_without_the_extras(python: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINER, encoding="utf-8")
    (tmp_path / "x.yaml").write_text(EXPERIMENT, encoding="utf-8")

    def ladder(*words: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-m", "pipeline", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)

    assert subprocess.run([python, "-c", "import nle"], capture_output=True, check=False).returncode  # it is as it says
    ran = ladder("run", "x.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (attempt,) = (tmp_path / "mlruns" / "attempts").iterdir()
    for words in (("status",), ("compare", "--out", "page"), ("diagnose", attempt.name), ("check", "x.yaml")):
        done = ladder(*words)
        assert "Traceback" not in done.stderr and done.returncode in (0, 2), (words, done.stderr)
    assert (tmp_path / "page" / "compare.html").exists()
    nothing = ladder("resume")
    assert nothing.returncode == 2 and "nothing to resume" in nothing.stderr


def test_what_needs_an_extra_says_so(python: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("experiment: {name: own}\n", encoding="utf-8")
    for words, extra in ((("run", "x.yaml"), "ladder[nethack]"), (("tune", "x.yaml"), "ladder[tune]")):
        command = [python, "-m", "pipeline", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and extra in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.yaml"]
