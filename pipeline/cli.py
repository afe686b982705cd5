"""The command line: parses, and calls the command. What each does is in `pipeline/commands/`."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline.config import ExperimentConfig
from pipeline.errors import (
    EXIT_BAD_INPUT,
    EXIT_HEALTHY,
    EXIT_INFRASTRUCTURE,
    EXIT_INTERRUPTED,
    BadInput,
    InfrastructureFailure,
)
from pipeline.experiment_file import load_experiments, with_overrides
from pipeline.preflight import not_accepted
from pipeline.processes.environment import prepare_python
from pipeline.processes.kernel_view import hide_command_line
from pipeline.processes.signals import ignore_asking, interruptible
from pipeline.processes.streams import complain, make_discreet, open_standard_streams, written
from pipeline.secrets import learn_environment
from pipeline.tracking.environment import prepare_mlflow

if TYPE_CHECKING:
    from pipeline.compare.command import Form

# MLflow takes seconds to load, and a refusal should not: each command is imported when its words have been understood.


def _run(path: str, overrides: Sequence[str]) -> int:
    from pipeline.launchers.choose import make_launcher
    from pipeline.launchers.gpu import require_device

    configs = load_experiments(path, overrides)
    if lines := not_accepted(configs[0]):
        raise BadInput(*(f"{path}: {line}" for line in lines))
    require_device(configs)
    launched = configs[0].launcher
    if launched.kind != "local":
        from pipeline.commands.cluster import require_reachable_store

        require_reachable_store(configs[0])
    with contextlib.closing(make_launcher(configs[0])) as launcher:
        alone = launched.parallel == 1 or len(configs) == 1
        if alone and any(config.trainer.command is None for config in configs):
            launcher.warm_up()  # it imports torch while this process imports MLflow
        from pipeline.commands.run import run

        return run(configs, launcher)


def _resume(words: Sequence[str]) -> int:
    named = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    for word in overrides:
        if not word.startswith(("tracking.", "budget.", "notify.", "launcher.")):
            allowed = "tracking.…, budget.…, notify.… and launcher.…"
            raise BadInput(f"{word}: an experiment goes on as it began; only {allowed} can be given here")
    if len(named) > 1:
        raise BadInput(f"{' '.join(named)}: one experiment at a time")
    here = with_overrides(overrides)
    from pipeline.commands.resume import resume
    from pipeline.launchers.choose import make_launcher

    with contextlib.closing(make_launcher()) as launcher:
        return resume(named[0] if named else None, here, overrides, launcher)


def _check(path: str, overrides: Sequence[str], seconds: float) -> int:
    config = load_experiments(path, overrides)[0]
    from pipeline.commands.check import check, check_cluster

    if config.trainer.command is not None:
        from pipeline.commands.rehearse import rehearse

        return rehearse(config, seconds) if check_cluster(config) else EXIT_BAD_INPUT

    return check(config)


def _init(parsed: argparse.Namespace) -> int:
    from pipeline.commands.init import init, own_options

    out, force, words = own_options(parsed.words)
    return init(parsed.script, words, out or parsed.out, replace=force or parsed.force)


def _compare(words: Sequence[str], out: str | None, form: Form | None, target: float | None) -> int:
    """Run ids, and overrides such as tracking.root=DIR, in any order."""
    config = with_overrides([word for word in words if "=" in word])
    from pipeline.commands.environment import make_console, make_truthful
    from pipeline.compare.command import compare
    from pipeline.tracking.store import open_store

    store, console = open_store(config), make_console(aside=form is not None)
    make_truthful(store, console)
    named = [word for word in words if "=" not in word]
    compare(store, named, None if out is None else Path(out), console, form, target)
    return EXIT_HEALTHY


def _watch(run: str, overrides: Sequence[str], seed: int, pace: float) -> int:
    config = with_overrides(overrides)
    from pipeline.commands.watch import watch
    from pipeline.tracking.store import open_store

    return watch(open_store(config), run, seed, pace)


def _status(config: ExperimentConfig, *, everything: bool, follow: bool) -> int:
    from pipeline.commands.environment import make_console, make_truthful
    from pipeline.commands.status import status
    from pipeline.tracking.access import has_store, tracking_root
    from pipeline.tracking.store import open_store

    root = tracking_root(config)
    if not has_store(config):
        print(f"no experiments yet under {root}")
        return EXIT_HEALTHY
    store, console = open_store(config), make_console()
    status(store, console, everything=everything, follow=follow, before=partial(make_truthful, store, console))
    return EXIT_HEALTHY


def _ui(config: ExperimentConfig, port: int) -> int:
    from pipeline.commands.environment import make_console
    from pipeline.commands.ui import ui
    from pipeline.tracking.access import has_store, tracking_uri
    from pipeline.tracking.store import open_store

    _status(config, everything=False, follow=False)
    if has_store(config):
        ui(open_store(config), tracking_uri(config), port, make_console())
    return EXIT_HEALTHY


def _diagnose(target: str, overrides: Sequence[str], out: str | None) -> int:
    from pipeline.commands.diagnose import cases_of_file, cases_of_run, report
    from pipeline.commands.environment import make_console

    cases = (cases_of_file if target.endswith((".csv", ".csv.gz")) else cases_of_run)(target, overrides)
    for case in cases:
        report(case, make_console(), None if out is None else Path(out))
    return EXIT_HEALTHY


def _tune(path: str, overrides: Sequence[str], validate_on: int | None) -> int:
    from pipeline.commands.tune import tune

    return tune(path, overrides, validate_on)


def _seconds(word: str, least: float = 0, most: float = 60) -> float:
    """Argument: a number of seconds."""
    with contextlib.suppress(ValueError):
        if least <= (value := float(word)) <= most:
            return value
    raise argparse.ArgumentTypeError(f"{word!r}: must be seconds between {least:g} and {most:g}")


def _seed(word: str) -> int:
    """Argument: a seed."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := int(word)) < 2**31:
            return value
    raise argparse.ArgumentTypeError(f"{word!r}: must be a whole number from 0 to 2147483647")


def _port(word: str) -> int:
    """Argument: a port."""
    with contextlib.suppress(ValueError):
        if 0 < (value := int(word)) < 2**16:
            return value
    raise argparse.ArgumentTypeError(f"{word!r}: must be a port from 1 to 65535")


def _score(word: str) -> float:
    """Argument: a score."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(word)):
            return value
    raise argparse.ArgumentTypeError(f"{word!r}: must be a number")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (ladder --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ladder", description="Unattended training with a fallback ladder.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "run an experiment down its ladder"),
        (
            "check",
            "the pre-flight checklist of an experiment; a trainer of your own is tried, each rung for some seconds",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("experiment", help="a YAML file, such as experiments/quickstart.yaml")
        command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="replace values of the file")
        if name == "check":
            what = "how long each rung of a trainer of your own is tried (default 20)"
            command.add_argument("--seconds", type=partial(_seconds, least=1, most=3600), default=20.0, help=what)
    text = "propose the experiment of a training script: YAML of ten lines"
    command = commands.add_parser("init", help=text, description=text)
    command.add_argument("--out", metavar="FILE.yaml", help="write it to a file, instead of standard output")
    command.add_argument("--force", action="store_true", help="replace the file if it exists")
    command.add_argument("script", metavar="SCRIPT", help="the training script")
    what = "what it is given; --out and --force may stand here too, and all behind a -- is the script's"
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="word", help=what)
    command = commands.add_parser("diagnose", help="when each health rule would have fired on a run, and why")
    command.add_argument("target", help="the id of a run, or a CSV file with a column `step`")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as health.rules=seed")
    command.add_argument("--out", metavar="DIR", help="a folder for a picture of each rule that fires")
    text = "go on with an experiment that was cut off"
    command = commands.add_parser("resume", help=text, description=text)
    command.add_argument(
        "words",
        nargs="*",
        metavar="PARENT_RUN_ID | key.sub=value",
        help="its parent run (default: the newest unfinished one); "
        "tracking.…, budget.…, notify.… and launcher.… can be given",
    )
    text = "tune the coefficients that a study names, for its base experiment; again: go on with it"
    command = commands.add_parser("tune", help=text, description=text)
    what = (
        "a YAML file, such as experiments/study.yaml: study.base is the experiment, study.trial what a trial shortens"
    )
    command.add_argument("study", help=what)
    what = "replace values of the base, and study.… of the study, such as study.trial.training.steps=80000"
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help=what)
    text = (
        "instead: run the base with the best coefficients and with its own, at its own length, on N fresh seeds each, "
    )
    text += "and say whether the gain is real"
    command.add_argument("--validate", type=int, metavar="N", help=text)
    text = "what happened in an experiment: its attempts side by side"
    command = commands.add_parser("compare", help=text, description=text)
    what = "parent runs (default: the newest experiment, with its siblings of other seeds), tracking.root=DIR"
    command.add_argument("words", nargs="*", metavar="PARENT_RUN_ID", help=what)
    command.add_argument("--out", metavar="DIR", help="also write DIR/compare.html, one file that needs no network")
    text = "only the table of attempts, with all numbers, for a program to read"
    command.add_argument("--format", choices=("csv", "json"), help=text)
    text = "the score whose cost is told, in steps and minutes (default: the lowest of the rungs' median final scores)"
    command.add_argument("--target", type=_score, metavar="SCORE", help=text)
    text = "a checkpoint plays a game in this terminal, the router's weights beside it"
    command = commands.add_parser("watch", help=text, description=text)
    command.add_argument("run", metavar="RUN_ID", help="an attempt, or an experiment: then its settled attempt")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as tracking.root=DIR")
    command.add_argument("--seed", type=_seed, default=1, help="of the game (default 1)")
    command.add_argument("--pace", type=_seconds, default=0.08, help="seconds a step (default 0.08)")
    command = commands.add_parser("status", help="experiments and attempts, newest first")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as tracking.root=DIR")
    command.add_argument("--all", action="store_true", help="also the older ones, which a terminal leaves out")
    command.add_argument("--follow", action="store_true", help="until no experiment is running any more")
    text = "serve the MLflow UI on this machine, and say where in it the newest experiment is"
    command = commands.add_parser("ui", help=text, description=text)
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as tracking.root=DIR")
    command.add_argument("--port", type=_port, default=5000, help="default 5000")
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options may stand anywhere: argparse by itself takes no further words once an option has come between."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if parsed.command != "init":
        (parsed.words if parsed.command in ("compare", "resume") else parsed.overrides).extend(rest)
    return parsed


def _shown(show: Callable[[], int]) -> int:
    """The exit code of a command that only shows something. A reader that has seen enough (`| head`) is no failure."""
    try:
        code = show()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        written(sys.stdout.flush, sys.stdout)
        return EXIT_HEALTHY


def _command(arguments: Sequence[str] | None) -> int:
    parsed = _parse(arguments)
    match parsed.command:
        case "run":
            return _run(parsed.experiment, parsed.overrides)
        case "check":
            return _check(parsed.experiment, parsed.overrides, parsed.seconds)
        case "resume":
            return _resume(parsed.words)
        case "init":
            return _init(parsed)
        case "compare":
            return _shown(partial(_compare, parsed.words, parsed.out, parsed.format, parsed.target))
        case "watch":
            return _watch(parsed.run, parsed.overrides, parsed.seed, parsed.pace)
        case "status":
            config = with_overrides(parsed.overrides)
            return _shown(partial(_status, config, everything=parsed.all, follow=parsed.follow))
        case "ui":
            return _shown(partial(_ui, with_overrides(parsed.overrides), parsed.port))
        case "diagnose":
            return _shown(partial(_diagnose, parsed.target, parsed.overrides, parsed.out))
        case _:
            return _tune(parsed.study, parsed.overrides, parsed.validate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    open_standard_streams()
    learn_environment()
    make_discreet()
    hide_command_line()
    prepare_python()
    prepare_mlflow()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a library's, on values that this program knows to handle
    try:
        with interruptible():
            return _command(arguments)
    except BadInput as error:
        for line in error.args:
            complain(str(line))
        return EXIT_BAD_INPUT
    except (InfrastructureFailure, OSError) as error:
        complain(str(error))
        from pipeline.tracking.patience import leave  # loaded already, if there is a store to wait for

        return leave(EXIT_INFRASTRUCTURE)
    except KeyboardInterrupt:  # before anything was started
        complain("interrupted")
        return EXIT_INTERRUPTED


def program() -> int:
    """The program `ladder`. Once the command is done, no signal changes the exit code any more."""
    code = main()
    ignore_asking()
    return code


if __name__ == "__main__":
    sys.exit(program())
