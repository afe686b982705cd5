"""A process that a zygote forks is like one that is exec'd, whether the zygote was exec'd or is nested in a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.processes.leash import FIRST_TO_GO
from tests.processes.maker import ForkedThere, Maker, ZygoteThere, eventually, lives

ROOT = Path(__file__).parents[2]
EXECUTED, NESTED = "exec'd", "nested"
PRELOADED = """
import atexit, os, tempfile, weakref
tempfile.gettempdir()
with open(os.environ["IMPORTS"], "a") as file:
    file.write(f"{os.getpid()}\\n")
class Thing: ...
thing = Thing()
atexit.register(print, "the zygote's exit handler")
weakref.finalize(thing, print, "the zygote's finalizer")
"""
SCRIPT = """
import sys
from pathlib import Path
exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"))
"""
AWAIT = """
import sys, time
from pathlib import Path
while not Path(sys.argv[2]).exists():
    time.sleep(0.005)
"""
PAUSE = "import signal\nwhile True: signal.pause()\n"


@pytest.fixture(scope="module", params=[EXECUTED, NESTED])
def way(request: pytest.FixtureRequest) -> str:
    """How the zygote comes about."""
    return request.param


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory, way: str) -> Path:
    """The file that has a line for each time that `preloaded` is imported. Its folder has the modules."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "preloaded.py").write_text(PRELOADED)
    (folder / "script.py").write_text(SCRIPT)
    return folder / "imports"


@pytest.fixture(scope="module")
def make_maker(imports: Path, way: str) -> Iterator[Callable[[], Maker]]:
    made: list[Maker] = []

    def make() -> Maker:
        path = f"{imports.parent}{os.pathsep}{ROOT}"
        environment = {**os.environ, "PYTHONPATH": path, "IMPORTS": str(imports)}
        made.append(Maker(["preloaded"] if way == NESTED else [], environment))
        return made[-1]

    yield make
    for each in made:
        if each.process.returncode is None:
            each.close()


@pytest.fixture(scope="module")
def shared(make_maker: Callable[[], Maker]) -> ZygoteThere:
    """A zygote for all tests that leave it alive."""
    return make_maker().zygote(["preloaded"])


@pytest.fixture
def fresh(make_maker: Callable[[], Maker]) -> ZygoteThere:
    """A zygote for a test that ends it, or its maker."""
    return make_maker().zygote(["preloaded"])


class Runs:
    """Programs that zygotes run for a test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.environment = {"PATH": os.environ["PATH"], "MARK": "here"}
        self._count = 0

    def start(self, zygote: ZygoteThere, source: str, *arguments: str, **options: object) -> ForkedThere:
        program = self.folder / f"program{self._count}.py"
        self._count += 1
        program.write_text(source)
        settings = {"environment": self.environment, "output": str(self.log)} | options
        return zygote.run("script", [str(program), *arguments], **settings)

    def said(self, zygote: ZygoteThere, source: str, **options: object) -> str:
        """What a program prints that ends with exit code 0."""
        assert self.start(zygote, source, **options).wait() == 0, self.log.read_text()
        return self.log.read_text()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def shown_environment(pid: int) -> list[str]:
    """The variables in `/proc/PID/environ`, in their order."""
    return [os.fsdecode(each) for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if each]


def files_of(pid: int) -> list[Path]:
    """What the file descriptors of a process lead to."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has closed it meanwhile
            found.append(each.readlink())
    return found


def test_modules_are_imported_once_for_several_processes(shared: ZygoteThere, runs: Runs, imports: Path) -> None:
    before = None
    for _ in range(3):
        assert runs.start(shared, "import preloaded; print(preloaded.thing)").wait() == 0
        before = before or imports.read_text()
    assert imports.read_text() == before and runs.log.read_text().count("Thing object") == 3


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("print('done')", 0, "done\n"),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(0)", 0, ""),
        ("import sys; sys.exit(1)", 1, ""),
        ("import sys; sys.exit(12)", 12, ""),
        ("import sys; sys.exit(130)", 130, ""),
        ("import sys; sys.exit('no such file')", 1, "no such file\n"),
        ("import os; os._exit(7)", 7, ""),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt\n"),
    ],
)
def test_exit_code(shared: ZygoteThere, runs: Runs, source: str, code: int, said: str) -> None:
    assert runs.start(shared, source).wait() == code
    assert runs.log.read_text().endswith(said)


def test_an_uncaught_exception_leaves_its_traceback_in_the_log(shared: ZygoteThere, runs: Runs) -> None:
    assert runs.start(shared, "def fail(): raise ValueError('seven')\nfail()").wait() == 1
    said = runs.log.read_text()
    assert said.startswith("Traceback") and "in fail" in said and said.endswith("ValueError: seven\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP])
def test_death_by_a_signal_is_a_negative_code(shared: ZygoteThere, runs: Runs, number: signal.Signals) -> None:
    forked = runs.start(shared, PAUSE)
    os.kill(forked.pid, number)
    assert forked.wait() == -number


def test_ctrl_c_is_a_keyboard_interrupt(shared: ZygoteThere, runs: Runs) -> None:
    source = """
import signal, sys
try:
    print("ready", flush=True)
    signal.pause()
except KeyboardInterrupt:
    sys.exit(3)
"""
    forked = runs.start(shared, source)
    eventually(lambda: runs.log.exists() and "ready" in runs.log.read_text())
    os.kill(forked.pid, signal.SIGINT)
    assert forked.wait() == 3


def test_a_signal_reaches_the_group_as_soon_as_the_process_id_is_known(shared: ZygoteThere, runs: Runs) -> None:
    for _ in range(20):
        forked = runs.start(shared, PAUSE)
        assert os.getsid(forked.pid) == os.getpgid(forked.pid) == forked.pid
        os.killpg(forked.pid, signal.SIGTERM)
        assert forked.wait() == -signal.SIGTERM


@pytest.fixture
def environment() -> dict[str, str]:
    values = {"COMMAS": "a,b;c", "LINES": "first\nsecond\n", "EQUALS": "a=b==", "UNICODE": "Übung λ → 走", "EMPTY": ""}
    return {
        "PATH": os.environ["PATH"],
        **values,
        "BYTES": os.fsdecode(b"\xff\xfe"),
        "LC_ALL": "C.UTF-8",
        "MARK": "here",
    }


def test_the_environment_is_seen_from_outside_as_soon_as_the_process_id_is_known(
    shared: ZygoteThere, runs: Runs, environment: dict[str, str]
) -> None:
    forked = runs.start(shared, PAUSE, environment=environment, first="MARK")
    shown = shown_environment(forked.pid)
    assert shown[0] == "MARK=here" and sorted(shown) == sorted(f"{name}={value}" for name, value in environment.items())
    os.kill(forked.pid, signal.SIGKILL)
    assert forked.wait() == -signal.SIGKILL


def test_an_environment_larger_than_the_room_still_shows_the_first_variable(shared: ZygoteThere, runs: Runs) -> None:
    environment = {f"LARGE{number}": "x" * 10_000 for number in range(20)} | {"MARK": "here"}
    source = f"import os; assert dict(os.environ) == {environment!r}\n{PAUSE}"
    forked = runs.start(shared, source, environment=environment, first="MARK")
    shown = shown_environment(forked.pid)
    names = {name: f"{name}={value}" for name, value in environment.items()}
    assert shown[0] == "MARK=here" and len(shown) < 20
    assert all(names[each.split("=")[0]].startswith(each) for each in shown)
    os.kill(forked.pid, signal.SIGTERM)
    assert forked.wait() == -signal.SIGTERM


def test_python_c_and_children_see_the_same_environment(
    shared: ZygoteThere, runs: Runs, environment: dict[str, str]
) -> None:
    source = """
import ctypes, json, os, shutil, subprocess
env = shutil.which("env")
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
def pairs(text):
    return dict(os.fsdecode(each).split("=", 1) for each in text.split(b"\\0") if each)
with open("by_c", "wb") as file:
    os.posix_spawn(env, ["env", "-0"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)])
    os.wait()
if os.fork() == 0:
    os.dup2(os.open("by_execv", os.O_WRONLY | os.O_CREAT), 1)
    os.execv(env, ["env", "-0"])
os.wait()
print(json.dumps([
    dict(os.environ),
    {name: os.fsdecode(getenv(name.encode())) for name in os.environ},
    pairs(subprocess.check_output([env, "-0"])),
    pairs(open("by_c", "rb").read()),
    pairs(open("by_execv", "rb").read()),
    getenv(b"LADDER_ROOM"), getenv(b"IMPORTS"),
]))
"""
    said = json.loads(runs.said(shared, source, environment=environment, folder=str(runs.folder)))
    assert said == [environment] * 5 + [None, None]


def test_the_command_line_is_the_one_of_the_module(shared: ZygoteThere, runs: Runs) -> None:
    forked = runs.start(shared, PAUSE, environment={"SECRET": "tell-nobody"})
    shown = psutil.Process(forked.pid).cmdline()
    assert shown[:4] == [sys.executable, "-P", "-m", "script"] and "tell-nobody" not in " ".join(shown)
    os.kill(forked.pid, signal.SIGKILL)
    assert forked.wait() == -signal.SIGKILL


def test_arguments_arrive(shared: ZygoteThere, runs: Runs) -> None:
    forked = runs.start(shared, "import sys; assert sys.argv[2:] == ['a b', 'ü'], sys.argv", "a b", "ü")
    assert forked.wait() == 0, runs.log.read_text()


def test_tmpdir_is_honoured_although_the_zygote_has_asked_for_it(shared: ZygoteThere, runs: Runs) -> None:
    said = runs.said(
        shared, "import tempfile; print(tempfile.gettempdir(), end='')", environment={"TMPDIR": str(runs.folder)}
    )
    assert said == str(runs.folder)


def test_what_a_process_registers_for_its_end_is_done_and_what_the_zygote_did_is_not(
    shared: ZygoteThere, runs: Runs
) -> None:
    source = """
import atexit, pathlib, tempfile, threading, time, weakref
atexit.register(print, "my exit handler")
class Thing: ...
thing = Thing()
weakref.finalize(thing, print, "my finalizer")
folder = tempfile.TemporaryDirectory(dir=".")
threading.Thread(target=lambda: (time.sleep(0.05), print("my thread"))).start()
"""
    said = runs.said(shared, source, folder=str(runs.folder))
    assert said == "my thread\nmy finalizer\nmy exit handler\n"
    assert not [each for each in runs.folder.iterdir() if each.is_dir()]


def test_signals_have_the_dispositions_of_a_new_process(fresh: ZygoteThere, runs: Runs) -> None:
    fresh.maker.ask("handle", signal.SIGUSR1)
    zygote = fresh.maker.zygote(["preloaded"])
    source = """
import signal
handled = [each for each in signal.valid_signals() if callable(signal.getsignal(each))]
assert handled == [signal.SIGINT] and signal.getsignal(signal.SIGINT) is signal.default_int_handler, handled
for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
    assert signal.getsignal(each) is signal.SIG_DFL, each
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
assert signal.set_wakeup_fd(-1) == -1
"""
    runs.said(zygote, source)


def test_it_goes_first_where_memory_runs_out(shared: ZygoteThere, runs: Runs) -> None:
    assert int(runs.said(shared, "print(open('/proc/self/oom_score_adj').read())")) == FIRST_TO_GO


def test_it_reads_nothing_and_adds_to_its_logs_in_its_folder(shared: ZygoteThere, runs: Runs) -> None:
    errors, elsewhere = runs.folder / "errors", runs.folder / "elsewhere"
    elsewhere.mkdir()
    source = """
import os, sys
assert sys.stdin.read() == ""
print(os.getcwd())
print("flushed", flush=True)
os.write(1, b"by the system\\n")
print("to stderr", file=sys.stderr)
assert sorted(os.listdir("/proc/self/fd")) == ["0", "1", "2", "3"], os.listdir("/proc/self/fd")  # 3 lists them
"""
    runs.log.write_text("before\n")
    for _ in range(2):
        assert runs.start(shared, source, errors=str(errors), folder=str(elsewhere)).wait() == 0, errors.read_text()
    assert runs.log.read_text() == "before\n" + f"{elsewhere}\nflushed\nby the system\n" * 2
    assert errors.read_text() == "to stderr\n" * 2
    assert runs.start(shared, "import sys; print('1'); print('2', file=sys.stderr)").wait() == 0
    assert sorted(runs.log.read_text().splitlines()[-2:]) == ["1", "2"]


def test_several_run_at_once_and_each_has_its_own_end(shared: ZygoteThere, runs: Runs) -> None:
    gates = [runs.folder / f"gate{number}" for number in range(5)]
    source = f"{AWAIT}\nraise SystemExit(int(sys.argv[3]))"
    started = [runs.start(shared, source, str(gates[number]), str(number)) for number in range(3)]
    assert len({each.pid for each in started}) == 3
    gates[1].touch()
    assert started[1].wait() == 1
    started += [runs.start(shared, source, str(gates[number]), str(number)) for number in (3, 4)]
    for number in (4, 2, 0, 3):
        assert started[number].poll() is None and lives(started[number].pid)
        gates[number].touch()
        assert started[number].wait() == number
    assert [each.wait() for each in started] == [0, 1, 2, 3, 4]


def test_a_wait_of_no_time_hears_of_an_end(shared: ZygoteThere, runs: Runs) -> None:
    gate = runs.folder / "gate"
    forked = runs.start(shared, AWAIT, str(gate))
    assert forked.wait(0) is None and forked.wait(0.01) is None and forked.was_forked()
    gate.touch()
    assert eventually(lambda: forked.wait(0) == 0) and forked.poll() == 0


def test_what_cannot_begin_is_not_forked_and_others_run_on(shared: ZygoteThere, runs: Runs) -> None:
    gate = runs.folder / "gate"
    other = runs.start(shared, AWAIT, str(gate))
    for impossible in ({"output": str(runs.folder / "none" / "log")}, {"folder": str(runs.folder / "none")}):
        failed = runs.start(shared, "", **impossible)
        assert not failed.was_forked() and failed.wait() == 1
        with pytest.raises(RuntimeError, match="ProcessLookupError"):
            _ = failed.pid
    assert shared.alive and other.poll() is None
    gate.touch()
    assert other.wait() == 0


def test_its_processes_die_with_a_zygote_that_is_killed(fresh: ZygoteThere, runs: Runs) -> None:
    ended, running = runs.start(fresh, "raise SystemExit(5)"), [runs.start(fresh, PAUSE) for _ in range(2)]
    pids = [each.pid for each in running]
    eventually(lambda: not Path(f"/proc/{ended.pid}").exists())  # it has been reaped, so its end has been reported
    os.kill(fresh.pid, signal.SIGKILL)
    assert [each.wait() for each in running] == [-signal.SIGKILL] * 2 and ended.wait() == 5
    eventually(lambda: not any(map(lives, pids)))
    assert not fresh.alive
    with pytest.raises(RuntimeError, match="BrokenPipeError: the zygote has ended"):
        runs.start(fresh, "")


def test_it_and_its_processes_die_with_the_process_that_made_it(fresh: ZygoteThere, runs: Runs) -> None:
    pids = [fresh.pid, runs.start(fresh, PAUSE).pid]
    assert all(map(lives, pids))
    fresh.maker.kill()
    eventually(lambda: not any(map(lives, pids)))


def test_signals_to_its_makers_group_do_not_end_it(fresh: ZygoteThere, runs: Runs) -> None:
    forked = runs.start(fresh, PAUSE)
    assert os.getsid(fresh.pid) == fresh.pid != os.getsid(forked.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(fresh.pid, number)
    assert runs.start(fresh, "").wait() == 0 and fresh.alive


def test_an_idle_zygote_ends_and_says_so_but_not_while_a_process_runs(
    make_maker: Callable[[], Maker], runs: Runs
) -> None:
    maker, idle_seconds = make_maker(), 0.2

    def forked_in_time() -> tuple[ZygoteThere, ForkedThere] | None:
        zygote = maker.zygote(["preloaded"], idle_seconds=idle_seconds)
        with contextlib.suppress(RuntimeError):  # on a busy machine it may be idle for too long before
            forked = runs.start(zygote, f"import time; time.sleep({2 * idle_seconds})")
            return (zygote, forked) if forked.was_forked() else None
        return None

    zygote, forked = eventually(forked_in_time)
    assert forked.wait() == 0
    eventually(lambda: not zygote.alive)
    assert not Path(f"/proc/{zygote.pid}").exists()
    with pytest.raises(RuntimeError, match="BrokenPipeError"):
        runs.start(zygote, "")
    assert forked.wait() == 0


def test_close_ends_and_reaps_everything(fresh: ZygoteThere, runs: Runs) -> None:
    ended, running = runs.start(fresh, "raise SystemExit(5)"), runs.start(fresh, PAUSE)
    pid = running.pid
    eventually(lambda: not Path(f"/proc/{ended.pid}").exists())
    fresh.close()
    fresh.close()
    assert fresh.maker.ask("children") == [] and not Path(f"/proc/{fresh.pid}").exists()
    assert not fresh.alive and running.wait() == -signal.SIGKILL and ended.wait() == 5
    eventually(lambda: not lives(pid))


def test_it_holds_no_file_of_its_maker(make_maker: Callable[[], Maker], runs: Runs) -> None:
    maker, lock = make_maker(), runs.folder / "lock"
    maker.ask("lock", str(lock))
    zygote = maker.zygote(["preloaded"])
    forked = runs.start(zygote, PAUSE)
    for pid in (forked.pid, zygote.pid):
        assert lock not in files_of(pid)
    other = make_maker()
    with pytest.raises(RuntimeError, match="BlockingIOError"):
        other.ask("lock", str(lock))
    maker.process.kill()
    maker.process.wait()
    other.ask("lock", str(lock))  # at once: the kernel has closed the maker's files


@pytest.mark.parametrize("way", [EXECUTED], indirect=True)
def test_a_module_that_cannot_be_imported_ends_the_zygote(make_maker: Callable[[], Maker], runs: Runs) -> None:
    zygote = make_maker().zygote(["no_such_module"])
    with contextlib.suppress(RuntimeError):  # it may have ended before it was asked
        forked = runs.start(zygote, "")
        assert not forked.was_forked() and forked.wait() == -signal.SIGKILL
        with pytest.raises(RuntimeError, match="ProcessLookupError"):
            _ = forked.pid
    assert not zygote.alive


def test_the_way_is_the_one_that_the_test_means(way: str, shared: ZygoteThere, runs: Runs) -> None:
    runs.start(shared, "").wait()
    executed = "preloaded" in psutil.Process(shared.pid).cmdline()  # the modules that it has imported
    assert executed == (way == EXECUTED)


NESTED_SOURCE = """
import sys
from pathlib import Path
from pipeline.processes.zygote import Zygote

first, second = Zygote(["preloaded"]), Zygote(["preloaded"])
print(first._process is None, second._process is None, flush=True)
for number, zygote in enumerate((first, second)):
    program = Path(sys.argv[2]) / f"inner{number}.py"
    program.write_text(f"import sys; sys.exit({number + 5})")
    print(zygote.run("script", [str(program)], environment={}, output=Path(sys.argv[2]) / "inner").wait())
    zygote.close()
"""


def test_a_forked_process_has_a_zygote_of_its_own_if_it_was_asked_for(shared: ZygoteThere, runs: Runs) -> None:
    """It is the first that the process makes; another one has to import its modules."""
    environment = {**runs.environment, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    forked = runs.start(shared, NESTED_SOURCE, str(runs.folder), nested=True, environment=environment)
    assert forked.wait() == 0, runs.log.read_text()
    assert runs.log.read_text().splitlines()[:2] == ["True False", "5"]


def test_a_blocked_sigchld_hides_no_end(make_maker: Callable[[], Maker], runs: Runs) -> None:
    """A mask outlives exec: whatever started the maker may have blocked the signal."""
    maker = make_maker()
    maker.ask("block", signal.SIGCHLD)
    zygote = maker.zygote(["preloaded"])
    assert runs.start(zygote, "import sys; sys.exit(7)").wait() == 7


@pytest.mark.parametrize("way", [EXECUTED], indirect=True)
def test_a_module_that_starts_a_thread_makes_no_zygote(
    imports: Path, make_maker: Callable[[], Maker], runs: Runs
) -> None:
    """A fork would lose the thread and keep its locks."""
    (imports.parent / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    zygote = make_maker().zygote(["threaded"])
    with contextlib.suppress(RuntimeError):  # it may have ended before it was asked
        assert not runs.start(zygote, "").was_forked()
    eventually(lambda: not zygote.alive)


def test_a_module_that_was_preloaded_is_run_without_a_word(
    imports: Path, make_maker: Callable[[], Maker], runs: Runs
) -> None:
    """runpy warns of a module that it finds imported."""
    (imports.parent / "plain.py").write_text("print(__name__)\n")
    zygote = make_maker().zygote(["plain"])
    forked = zygote.run("plain", environment=runs.environment, output=str(runs.log))
    assert forked.wait() == 0 and runs.log.read_text() == "__main__\n"
