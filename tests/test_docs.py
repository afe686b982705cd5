"""What the documentation says is so: every command runs, every link leads somewhere, every metric is described."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import _parse, main
from pipeline.compare import load
from pipeline.experiment_file import load_experiments, merge, validate
from pipeline.health.definitions import definition
from pipeline.tuning.study import load_study
from tests.end_to_end.conftest import LIGHT, Experiment

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOR_DEVELOPERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]  # their examples are not run here
pytestmark = pytest.mark.xdist_group("docs")  # one experiment for all of them
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ACTIVATION = ". .venv/bin/activate"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block in this language."""
    found = [(page.name, each) for page in PAGES for each in BLOCK.findall(page.read_text())]
    return [(page, text) for page, (kind, text) in found if kind == language]


def commands() -> list[str]:
    """Every command line of the shell blocks, once."""
    lines = [line.split("  #")[0].strip() for _, text in blocks("sh") for line in text.splitlines()]
    lines = [re.sub(r"^nohup (.*) > \S+ &$", r"\1", line) for line in lines]
    return list(dict.fromkeys(line for line in lines if line and line != ACTIVATION))


@pytest.mark.parametrize("page", [*PAGES, *FOR_DEVELOPERS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files that are there; sections that exist. What is on the network is not asked for."""
    for link in LINK.findall(page.read_text()):
        if re.match(r"https?://", link):
            assert re.match(r"https://[a-z0-9.-]+\.[a-z]+(/|$)", link), link
            continue
        name, _, section = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and target.is_relative_to(ROOT), f"{page.name}: {link}"
        if section:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert section in slugs, f"{page.name}: {link}"


def test_every_page_can_be_reached() -> None:
    """From the README, by links."""
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        links = [(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(page.read_text())]
        todo += [link for link in links if link.suffix == ".md" and link not in reached]
    pages = {*PAGES, *FOR_DEVELOPERS}
    assert pages <= reached, [page.name for page in pages - reached]


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs").glob("*.png"):
        assert picture.stat().st_size < 300_000, picture.name


def test_yaml_of_the_pages_is_accepted(tmp_path: Path) -> None:
    assert len(blocks("yaml")) >= 5
    for page, text in blocks("yaml"):
        if "study" in (content := yaml.safe_load(text)):
            (tmp_path / page).write_text(text)
            load_study(tmp_path / page)
        else:
            validate(merge(content, [], page), page)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A small experiment, finished."""
    made = Experiment(tmp_path_factory.mktemp("docs"), {"ladder.rungs": ["v3"], "tracking.publish": True})
    assert made.run_here().outcome == "healthy"
    return made


def fast(words: list[str], made: Experiment) -> list[str]:
    """A `ladder` command in its fast form: in this test's store, with a trainer or a pace that takes no time."""
    names = {"PARENT_RUN_ID": made.parent.info.run_id, "RUN_ID": made.attempts[0].info.run_id}
    root = made.folder / "docs" if words[0] == "run" else made.root
    words = [f"tracking.root={root}" if word.startswith("tracking.root=") else names.get(word, word) for word in words]
    if words[0] != "init" and not any(word.startswith("tracking.root=") for word in words):
        words.append(f"tracking.root={root}" if words[0] != "check" else "training.seed=1")
    if words[0] == "run":
        words += [f"trainer.command=[{','.join(LIGHT)}]", "trainer.parameters.updates=1", "budget.hours=0.05"]
        words.append("trainer.parameters.steps=64")  # that many the light trainer says, and a progress may count them
        shorter = {"notify.command": "[cat]", "training.seed": "[1,2]"}  # two seeds stand for many
        parts = [word.partition("=") for word in words]
        words = [f"{key}={shorter.get(key, value)}" if equals else key for key, equals, value in parts]
    if words[0] == "watch":
        words += ["--pace", "0"]
    return words


def test_synopses_of_the_readme_parse() -> None:
    """Those with brackets and placeholders: without what is optional."""
    lines = [line for _, text in blocks("") for line in text.splitlines() if line.startswith(".venv/bin/ladder ")]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(re.sub(r"(?<!=)\[[^\]=]*\]|…", "", line.split("  #")[0].split("# ")[0]))
        _parse(words[1:])


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_pages(
    line: str, played: Experiment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`make` says what it would do, and that is run; `ladder` is run in its fast form; Python as it stands."""
    monkeypatch.chdir(ROOT)
    page = played.folder / "page"
    words = shlex.split(line)
    if words[0] == "make":
        # Not with the arguments of the `make test` that runs this.
        clean = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MFLAGS")}
        said = subprocess.run(["make", "-n", *words[1:]], env=clean, capture_output=True, text=True, check=True).stdout
        inner = [each for each in said.splitlines() if each.startswith(".venv/bin/ladder ")]
        if words[1] in ("run", "drill", "compare", "tune"):
            assert len(inner) == 1
        words = shlex.split(inner[0])[:] if inner else []
        if not words:
            assert said, line
            return
    if words[0].endswith("python"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{played.root / 'mlflow.db'}")
        monkeypatch.setattr(sys, "argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")
        assert capfd.readouterr().out.startswith("score ")
        return
    assert words[0].rpartition("/")[2] == "ladder", line
    # `ladder ui` becomes the server: tests/end_to_end/test_ui.py has one of its own.
    monkeypatch.setattr("pipeline.commands.ui.os.execve", lambda *_: None)
    given = [str(page) if before == "--out" else word for before, word in pairwise(words)]
    assert main(fast(given, played)) == 0, line
    if "--out" in given:
        assert (page / "compare.html").exists()
    capfd.readouterr()


def test_python_of_the_pages(played: Experiment) -> None:
    for _, text in blocks("python"):
        names: dict[str, Any] = {}
        exec(text.replace('root="mlruns"', f'root="{played.root}"'), names)
        assert len(names["night"].attempts) == 1


def test_every_metric_is_described(played: Experiment) -> None:
    """Those of a real run and of its parent: docs/health.md has all definitions."""
    logged = played.attempts[0].data.metrics.keys() | played.parent.data.metrics.keys()
    assert [name for name in logged if definition(name) is None] == []


def test_cartpole_example_goes_down_its_own_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it ships: the rule of its own fires on a training that is really broken, and the rung of its own cures it."""
    monkeypatch.chdir(ROOT)
    (config,) = load_experiments("examples/cartpole.yaml")
    assert config.trainer.command == ("python", "examples/cartpole.py")
    assert main(["run", "examples/cartpole.yaml", f"tracking.root={tmp_path}"]) == 0
    attempts = load(root=tmp_path).attempts
    assert attempts.verdict.tolist() == ["gradient_explosion", "healthy"]
    # Its first fifteen episodes are lucky: the mean is 90 at the verdict and falls until the trainer is ended.
    assert attempts.score[0] < 95 and attempts.score[1] > 150
