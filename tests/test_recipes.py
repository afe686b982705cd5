"""The recipes of CONTRIBUTING.md work: a copy of the code follows each, and passes the tests that it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECIPE = re.compile(r"^### (.+?)\n(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n# (\S+?)(:[^\n]*)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
RECIPES = dict(RECIPE.findall((ROOT / "CONTRIBUTING.md").read_text()))
_ASSIGNED = re.compile(r"^([A-Z_]+) = .*$", re.MULTILINE)


def files(recipe: str) -> list[str]:
    """The files of code that a recipe says are to be opened."""
    (line,) = re.findall(r"^Files: (.+)$", RECIPES[recipe], re.MULTILINE)
    return re.findall(r"`([^`]+)`", line)


def named_tests(recipe: str) -> list[str]:
    """The test files that a recipe names."""
    (line,) = re.findall(r"^Tests: (.+)$", RECIPES[recipe], re.MULTILINE)
    return re.findall(r"`(tests/[^`]*test_\w+\.py)`", line)


def follow(recipe: str, copy: Path) -> None:
    """Does in a copy of the code what the recipe's blocks say."""
    for name, added, code in BLOCK.findall(RECIPES[recipe]):
        path = copy / name
        if added:
            path.write_text(with_lines(path.read_text(), code))
        else:
            assert not path.exists(), name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)


def with_lines(text: str, code: str) -> str:
    """A file with the lines that a block adds.

    An import goes to the others. An assignment or a `return` replaces the one that is there; with a `return` goes the
    import of the launcher that it made. Anything else is one more entry of the tuple V3.
    """
    imports = [line for line in code.splitlines() if line.startswith("from ")]
    rest = "\n".join(line for line in code.splitlines() if line not in imports).strip()
    for line in imports:
        last = list(re.finditer(r"^from (?:pipeline|fallbacks)\S* import [^(\n]+$", text, re.MULTILINE))[-1]
        text = f"{text[: last.end()]}\n{line}{text[last.end() :]}"
    if not rest:
        return text
    if assigned := _ASSIGNED.match(rest):
        pattern = rf"^{assigned[1]} = .*$"
    elif rest.startswith("return "):
        text = re.sub(r"^from \S+ import LocalLauncher\n", "", text, flags=re.MULTILINE)
        pattern, rest = r"^    return \w+Launcher\(\)$", f"    {rest}"
    else:
        pattern, rest = r"^V3\b.*\($", f"\\g<0>\n    {rest.rstrip(',')},"
    text, count = re.subn(pattern, rest, text, flags=re.MULTILINE)
    assert count == 1, pattern
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code and its tests, after the four recipes that have code."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pipeline", "fallbacks", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for name in ("benchmarks", "experiments", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    for recipe in ("A rung", "A rule", "A kind of rule", "A launcher"):
        follow(recipe, folder)
    run(folder, "-m", "pipeline.health.page")
    return folder


def run(copy: Path, *words: str) -> str:
    """What Python says in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *words]
    result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_opens_at_most_three_files_of_code(recipe: str) -> None:
    assert 1 <= len(files(recipe)) <= 3
    written = {name for name, *_ in BLOCK.findall(RECIPES[recipe]) if not name.startswith("tests/")}
    assert written <= set(files(recipe))
    for name in files(recipe):
        assert name in written or (ROOT / name).exists(), name


def test_the_six_recipes_are_there() -> None:
    assert list(RECIPES) == [
        "A rung",
        "A rule",
        "A kind of rule",
        "A launcher",
        "A term of the loss",
        "A column of the comparison",
    ]


def test_what_they_add_is_there(copy: Path) -> None:
    said = run(
        copy,
        "-c",
        "from fallbacks.ladder import Ladder\n"
        "from pipeline.experiment_file import load_experiment\n"
        "from pipeline.launchers.choose import make_launcher\n"
        "config = load_experiment('experiments/quickstart.yaml')\n"
        "ladder = Ladder(config)\n"
        "print(ladder.rungs[-1].name, ladder.configs[-1].training.learning_rate)\n"
        "print([rule.name for rule in config.health.build() if rule.name in ('large_steps', 'falling_score')])\n"
        "print(type(make_launcher()).__name__)\n",
    )
    assert said.splitlines() == ["small_steps 1e-05", "['falling_score', 'large_steps']", "OneThreadLauncher"]
    page = (copy / "docs" / "health.md").read_text()
    assert "large_steps" in page and "falling_score" in page


def test_it_passes_the_tests_that_they_name(copy: Path) -> None:
    """And a rule passes those of the page that is made from the rules."""
    named = [name for recipe in ("A rung", "A rule", "A kind of rule", "A launcher") for name in named_tests(recipe)]
    said = run(copy, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", *named, "tests/health/test_page.py")
    assert "[100%]" in said and " F" not in said
