"""What the user's environment has no say in.

A notebook, a desktop or a shell's start-up file sets variables for other programs: a backend for matplotlib, colours
for files, warnings that are errors. This program sets what its own processes depend on, and notes what it has replaced.
Its own trainer gets the same; a trainer of the user's own gets the user's environment back.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

NOTE = "LADDER_REPLACED"
"""JSON: name → [what the user's environment had, what stands there now]; null: not set. Processes that this one starts
inherit it."""
OURS: Mapping[str, str | None] = {
    # Pictures are drawn to files.
    "MPLBACKEND": "agg",
    "MATPLOTLIBRC": None,
    # What is written to a log has no colours.
    "FORCE_COLOR": None,
    "CLICOLOR_FORCE": None,
    "PY_COLORS": None,
    "PYTHON_COLORS": None,
    "TTY_COMPATIBLE": None,
    "TTY_INTERACTIVE": None,
    # Python as it is by default.
    "PYTHONOPTIMIZE": None,
    "PYTHONINSPECT": None,
    "PYTHONDEVMODE": None,
    "PYTHONVERBOSE": None,
    "PYTHONDEBUG": None,
    "PYTHONPROFILEIMPORTTIME": None,
    "PYTHONTRACEMALLOC": None,
    "PYTHONASYNCIODEBUG": None,
    "PYTHONWARNDEFAULTENCODING": None,
    "PYTHONIOENCODING": None,
    "PYTHONUTF8": "1",
    "PYTHONCOERCECLOCALE": None,
    # Every process has as many threads as it says, on whatever cores are free, and prints nothing about them.
    "OMP_NUM_THREADS": None,
    "OMP_THREAD_LIMIT": None,
    "OMP_DYNAMIC": None,
    "OMP_SCHEDULE": None,
    "OMP_STACKSIZE": None,
    "OMP_WAIT_POLICY": None,
    "OMP_PROC_BIND": None,
    "OMP_PLACES": None,
    "OMP_DISPLAY_ENV": None,
    "GOMP_CPU_AFFINITY": None,
    "GOMP_SPINCOUNT": None,
    "KMP_AFFINITY": None,
    "KMP_BLOCKTIME": None,
    "KMP_SETTINGS": None,
    "KMP_STACKSIZE": None,
    "MKL_NUM_THREADS": None,
    "MKL_DYNAMIC": None,
    "MKL_VERBOSE": None,
    "MKL_CBWR": None,
    "DNNL_VERBOSE": None,
    "ONEDNN_VERBOSE": None,
    "OPENBLAS_NUM_THREADS": None,
    "OPENBLAS_CORETYPE": None,
    "NUMEXPR_MAX_THREADS": None,
    "NUMEXPR_NUM_THREADS": None,
    # NetHack's own.
    "NETHACKOPTIONS": None,
    "NETHACKDIR": None,
    "HACKDIR": None,
    "HACKOPTIONS": None,
    # It would write the keys of connections to a file.
    "SSLKEYLOGFILE": None,
}
"""Name → what this program's own processes have instead; None: not set."""
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_excluded: set[str] = set()


def take_over(ours: Mapping[str, str | None] = OURS) -> None:
    """Sets variables for this process and those that it starts. A second call changes nothing."""
    noted = _noted()
    for name, own in ours.items():
        if (now := os.environ.get(name)) == own:
            continue
        # Ours may have changed since it was noted. Theirs is what stands there when it is not ours.
        theirs = noted[name][0] if name in noted and noted[name][1] == now else now
        noted[name] = (theirs, own)
        _set(os.environ, name, own)
    if noted:
        os.environ[NOTE] = json.dumps(noted)


def prepare_python() -> None:
    """Takes the environment over, and undoes what Python has done with it already: warnings that are errors."""
    take_over({**OURS, **_search_path(), **_warnings()})
    reach_this_machine()
    if any(map(_is_error, sys.warnoptions)):  # from PYTHONWARNINGS, or from -W
        sys.warnoptions[:] = [option for option in sys.warnoptions if not _is_error(option)]
        for each in [each for each in warnings.filters if each[0] == "error"]:
            warnings.filters.remove(each)  # type: ignore[attr-defined]
        warnings.simplefilter("default", append=True)  # notices that the filters have changed


def reach_this_machine() -> None:
    """Excludes this machine from the proxies, for every process: a tracking server on it has no use for one."""
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        hosts = [each for each in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")).split(",") if each]
        if "*" not in hosts:
            added = [each for each in _THIS_MACHINE if each not in hosts]
            os.environ["no_proxy"] = ",".join([*hosts, *added])
            _excluded.update(added)


def is_excluded(host: str) -> bool:
    """Whether it is this process that has excluded a host from the proxies, and not the user."""
    return host in _excluded


def their_environment() -> dict[str, str]:
    """The environment of this process as the user would have it: for programs that are not this one's own."""
    environment = {name: value for name, value in os.environ.items() if name != NOTE}
    for name, (theirs, own) in _noted().items():
        if environment.get(name) == own:
            _set(environment, name, theirs)
    return environment


def _noted() -> dict[str, tuple[str | None, str | None]]:
    return {name: (theirs, own) for name, (theirs, own) in json.loads(os.environ.get(NOTE, "{}")).items()}


def _set(environment: dict[str, str] | os._Environ[str], name: str, value: str | None) -> None:
    if value is None:
        environment.pop(name, None)
    else:
        environment[name] = value


def _warnings() -> dict[str, str | None]:
    """PYTHONWARNINGS, where the user has it, without those that are errors.

    MLflow cannot be imported where its libraries' deprecations are errors. So for a trainer of the user's own they are
    shown (`default`), as they would be if they were not errors.
    """
    if (given := os.environ.get("PYTHONWARNINGS")) is None:
        return {}
    options = given.split(",")
    if any(map(_is_error, options)):
        shown = [":".join(["default", *each.split(":")[1:]]) if _is_error(each) else each for each in options]
        os.environ["PYTHONWARNINGS"] = ",".join(shown)
    return {"PYTHONWARNINGS": ",".join(each for each in options if not _is_error(each)) or None}


def _is_error(option: str) -> bool:
    """Whether an option of `-W` makes an error of a warning. Python takes the beginning of a word for the word."""
    action = option.split(":")[0].strip().lower()
    return bool(action) and "error".startswith(action)


def _search_path() -> dict[str, str]:
    """PYTHONPATH, where the user has one, with this code first: no module there takes the place of one of these."""
    here, given = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    if not given or Path(here).name == "site-packages":
        return {}
    others = [each for each in given.split(os.pathsep) if each != here]
    return {"PYTHONPATH": os.pathsep.join([here, *others])}
