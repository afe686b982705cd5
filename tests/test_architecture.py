"""The rules of the house: who may import whom, and what is where it is said to be."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import ExperimentConfig
from pipeline.preflight import preflight

ROOT = Path(__file__).parent.parent


def test_import_contracts() -> None:
    """The contracts in pyproject.toml, by import-linter."""
    lint = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_every_room_has_its_floor() -> None:
    """The layers contract names each folder and file of the package, so that no two import each other in a loop."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    named = [name.strip() for layer in layers for name in layer.split("|")]
    rooms = [path for path in (ROOT / "pipeline").iterdir() if path.is_dir() or path.suffix == ".py"]
    there = {f"pipeline.{path.stem}" for path in rooms if path.name not in ("__init__.py", "__pycache__")}
    assert sorted(named) == sorted({"fallbacks", *there})


def test_orchestrator_process_loads_no_torch() -> None:
    """Not even by way of a dependency."""
    code = (
        "import sys, pipeline.commands.run, pipeline.commands.resume, pipeline.cli, pipeline.launchers.local\n"
        "pipeline.experiment_file.load_experiment('experiments/quickstart.yaml')\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('torch', 'torch_geometric')))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_check_and_a_refusal_load_no_mlflow() -> None:
    """It takes seconds. The commands say what they do before that."""
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "codes = [main(['check', 'experiments/nethack.yaml']), main(['tune', 'no/such.yaml'])]\n"
        "print(codes, sorted(name for name in sys.modules if name.split('.')[0] == 'mlflow'))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[0, 2] []"


def test_checklist_points_at_code_that_exists() -> None:
    for item in preflight(ExperimentConfig()):
        module, _, name = item.where.partition(":")
        assert hasattr(importlib.import_module(module), name), item.where


def test_modules_say_what_they_are() -> None:
    for path in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("fallbacks/*.py")]:
        assert path.read_text(encoding="utf-8").startswith('"""'), path


_SUBPROCESS = ("run", "Popen", "check_output", "check_call", "call")
_OTHERS = ("Image.open", "gzip.open", "os.open", "tarfile.open")
_TEMPORARY = ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile")


def text_without_encoding(source: str) -> Iterator[tuple[int, str]]:
    """Line and source of each call that reads or writes text in whatever encoding the locale has."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        function, given = call.func, {each.arg: each.value for each in call.keywords}
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        if "encoding" in given or None in given:
            continue
        if name in ("read_text", "write_text"):
            text = len(call.args) < 2  # with more it is no path's method
        elif name in _SUBPROCESS and owner == "subprocess":
            text = bool({"text", "universal_newlines"} & given.keys())
        elif name in ("open", "fdopen", *_TEMPORARY) and f"{owner}.{name}" not in _OTHERS:
            place = 0 if (owner and name == "open") or name in _TEMPORARY else 1
            usual = ast.Constant("w+b" if name in _TEMPORARY else "r")
            mode = given.get("mode", call.args[place] if len(call.args) > place else usual)
            text = not (isinstance(mode, ast.Constant) and "b" in str(mode.value))
        else:
            text = False
        if text:
            yield call.lineno, ast.unparse(call)


def test_files_and_pipes_are_utf_8() -> None:
    """Whatever the locale says."""
    for folder in ("pipeline", "fallbacks", "benchmarks", "examples"):
        for path in ROOT.glob(f"{folder}/**/*.py"):
            assert not (found := list(text_without_encoding(path.read_text(encoding="utf-8")))), (path, found)


def test_text_without_an_encoding_is_found() -> None:
    bad = "open(p)", "p.open('a')", "p.read_text()", "p.write_text(t)", "NamedTemporaryFile('w')", "os.fdopen(3)"
    good = "open(p, 'rb')", "p.open(mode='wb')", "p.read_text(encoding='utf-8')", "os.open(p, 1)", "subprocess.run(c)"
    assert [text for _, text in text_without_encoding("\n".join((*bad, *good)))] == list(bad)
    assert list(text_without_encoding("subprocess.run(c, text=True)"))


def test_a_test_file_has_a_name_of_its_own() -> None:
    """pytest takes two files of one name in folders that are no packages for the same module."""
    places: dict[str, list[str]] = {}
    for path in ROOT.glob("tests/**/test_*.py"):
        if not (path.parent / "__init__.py").exists():
            places.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    assert not [each for each in places.values() if len(each) > 1]
