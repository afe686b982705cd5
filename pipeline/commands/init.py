"""`ladder init SCRIPT`: the YAML of ten lines with which a script has a ladder."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml

from pipeline.errors import EXIT_HEALTHY, BadInput
from pipeline.experiment_file import load_experiment
from pipeline.foreign.guess import Script, flags_of_settings, parses_flags, propose
from pipeline.foreign.help_text import Flag, flags_in
from pipeline.foreign.source import Facts, read
from pipeline.processes.environment import their_environment

HELP_SECONDS = 60.0
"""How long a script may take to say its flags: it imports its libraries for that."""
_VENVS = (".venv", "venv", "env")
_ASKED = ("mlflow", "tensorboard", "tensorboardX")
_WHICH = "import importlib.util, sys\nprint(*(name for name in sys.argv[1:] if importlib.util.find_spec(name)))"
_PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}


def init(path: str, words: Sequence[str], out: str | None, *, replace: bool) -> int:
    """Prints the YAML, or writes it to a file, once `load_experiment` accepts it. Raises BadInput."""
    script = _checked(path)
    if out is not None and Path(out).exists() and not replace:
        raise BadInput(f"--out: {out}: exists already; --force replaces it, or name another file")
    start, is_python = _start(script)
    facts, notes = _facts(script) if is_python else (Facts(), [])
    style = _style(facts)
    flags, why = (
        _flags(start, words, facts, style) if is_python else ([], "it is no Python, so its flags are not known")
    )
    known = Script(
        name=script.stem,
        start=tuple(start),
        words=tuple(words),
        flags=tuple(flags),
        style=style,
        facts=facts,
        installed=_installed(start[0]) if is_python else frozenset(),
    )
    proposal = propose(known)
    name = out or "x.yaml"
    head = [
        f"# The ladder of {path} ({proposal.framework}), proposed by `ladder init`. Try it: ladder check {name}",
        *(f"# {note}" for note in (*notes, *([why] if why else []))),
    ]
    text = "\n".join(head) + "\n" + proposal.text
    with tempfile.TemporaryDirectory(prefix="ladder-init-") as folder:
        file = Path(folder) / "proposal.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            load_experiment(file)
        except BadInput as error:
            raise BadInput(str(error).replace(str(file), f"the proposal for {path}")) from None
    if out is None:
        print(text, end="")
        return EXIT_HEALTHY
    existed = Path(out).exists()
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--out: {out}: {error.strerror}") from error
    print(f"{'replaced' if existed else 'wrote'} {out}; try it: ladder check {shlex.quote(out)}")
    return EXIT_HEALTHY


def _checked(path: str) -> Path:
    script = Path(path)
    if script.is_dir():
        raise BadInput(f"{path}: is a folder, not a training script")
    if not script.is_file():
        beside = ", ".join(sorted(str(each) for each in script.parent.glob("*.py"))[:5])
        raise BadInput(f"{path}: no such file" + (f"; there are {beside}" if beside else ""))
    if script.suffix in (".yaml", ".yml"):
        raise BadInput(f"{path}: is YAML already; ladder init takes the training script")
    return script


def _start(script: Path) -> tuple[list[str], bool]:
    """The words that start a script, and whether it is Python."""
    try:
        first = script.open("rb").readline(512).decode(errors="replace").strip()
    except OSError as error:
        raise BadInput(f"{script}: {error.strerror}") from error
    shebang = first.removeprefix("#!").split() if first.startswith("#!") else []
    is_python = script.suffix == ".py" or any("python" in Path(word).name for word in shebang)
    if is_python:
        return [_interpreter(script), str(script)], True
    if shebang and os.access(script, os.X_OK):
        return [str(script) if script.is_absolute() else os.path.join(".", script)], False  # noqa: PTH118  `./` is meant
    if shebang or script.suffix in (".sh", ".bash"):
        return [*(shebang or ["bash"]), str(script)], False
    if os.access(script, os.X_OK):
        return [str(script) if script.is_absolute() else os.path.join(".", script)], False  # noqa: PTH118
    raise BadInput(
        f"{script}: is neither Python (.py), nor executable, nor has it a first line that names an interpreter"
    )


def _interpreter(script: Path) -> str:
    """The Python of a virtual environment beside the script, or in a folder above it within its project."""
    here, working = script.absolute().parent, Path.cwd()
    for folder in (here, *here.parents):
        for name in _VENVS:
            python = folder / name / "bin" / "python"
            if os.access(python, os.X_OK):
                if (folder / name).resolve() == Path(sys.prefix).resolve():
                    return "python"
                return str(python.relative_to(working)) if python.is_relative_to(working) else str(python)
        if folder == working or (folder / ".git").exists() or (folder / "pyproject.toml").exists():
            break
    return "python"


def _facts(script: Path) -> tuple[Facts, list[str]]:
    try:
        return read(script), []
    except (OSError, SyntaxError, ValueError) as error:
        return Facts(), [f"its source cannot be read: {' '.join(str(error).split())}"]


def _style(facts: Facts) -> Literal["argparse", "tyro", "hydra"]:
    if facts.imports("hydra"):
        return "hydra"
    return "tyro" if facts.imports("tyro") else "argparse"


def _flags(start: Sequence[str], words: Sequence[str], facts: Facts, style: str) -> tuple[list[Flag], str | None]:
    """What the script says of its flags, or why it says nothing. One without a parser is not run: it might train."""
    if not parses_flags(facts.modules):
        return [], None if facts.flags else "it has no parser of flags; what is given after the script is kept as it is"
    if style == "hydra":
        said, why = _said([*start, *words, "--cfg", "job"])
        with contextlib.suppress(yaml.YAMLError):
            if isinstance(settings := yaml.safe_load(said), dict):
                return flags_of_settings(settings), why
        return [], why or "its --cfg job prints no settings"
    said, why = _said([*start, *words, "--help"])
    flags = flags_in(said)
    return flags, None if flags else (why or "its --help names no flags")


def _said(command: Sequence[str]) -> tuple[str, str | None]:
    """What a command prints, or why it prints nothing of use. It is ended after a minute, with all that it started."""
    name = command[-2] if command[-1] == "job" else command[-1]
    with tempfile.TemporaryDirectory(prefix="ladder-init-") as scratch:
        environment = {**their_environment(), **_PLAIN, "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db"}
        words = [sys.executable if command[0] == "python" else command[0], *command[1:]]
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return "", f"{command[0]} cannot be started: {error.strerror}"
        try:
            out, err = process.communicate(timeout=HELP_SECONDS)
        except subprocess.TimeoutExpired:
            return "", f"its {name} says nothing within {HELP_SECONDS:g} seconds; the flags are those of its source"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        return out, None
    last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "it says nothing")
    return "", f"its {name} ends with exit code {process.returncode}: {last}"


def _installed(python: str) -> frozenset[str]:
    """Of some libraries, those that an interpreter has."""
    command = [sys.executable if python == "python" else python, "-c", _WHICH, *_ASKED]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=HELP_SECONDS, check=True)
        return frozenset(asked.stdout.split())
    return frozenset()


def own_options(words: Sequence[str]) -> tuple[str | None, bool, list[str]]:
    """`--out FILE` and `--force` among the words after the script, and the others; all behind `--` are the script's."""
    out, force, rest, todo = None, False, list[str](), list(words)
    while todo:
        word = todo.pop(0)
        if word == "--":
            rest += todo
            break
        if word == "--out" and not todo:
            raise BadInput("--out: expects the name of a file")
        if word == "--out" or word.startswith("--out="):
            out = todo.pop(0) if word == "--out" else word.partition("=")[2]
        elif word == "--force":
            force = True
        else:
            rest.append(word)
    return out, force, rest
