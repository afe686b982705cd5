"""What the end of a log says of the end of its program, whatever libraries print after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.experiment.conclude import verdict_at_exit
from pipeline.health.verdict import Verdict
from pipeline.launchers.exit import Exit
from pipeline.launchers.last_words import LastWords

HEAD = 'epoch 1\nTraceback (most recent call last):\n  File "t.py", line 3, in <module>\n    step()\n'
FAREWELLS = {"nothing": ""} | {
    name: f"{words}\n"
    for name, _, words in (
        each.strip().partition("\n")
        for each in (Path(__file__).parent / "farewells.txt").read_text(encoding="utf-8").split("=== ")[1:]
    )
}


def end(log: str, tmp_path: Path, code: int = 1, *, logged: bool = True) -> Verdict:
    path = tmp_path / "trainer.log"
    path.write_text(log, encoding="utf-8")
    return verdict_at_exit(Exit.of(code, path, 0), logged=logged, last_step=64)


def last_line(verdict: Verdict) -> str:
    return str(verdict.evidence[0].detail["last line"])


@pytest.mark.parametrize("farewell", FAREWELLS.values(), ids=FAREWELLS)
@pytest.mark.parametrize(
    "error",
    ["ValueError: too many values to unpack", "KeyboardInterrupt", "json.decoder.JSONDecodeError: Expecting value",
     "xgboost.core.XGBoostError: bad", "mypackage.Broken.StateError", "SystemError: <x> returned NULL"],
)  # fmt: skip
def test_the_error_is_named_whatever_comes_after_it(error: str, farewell: str, tmp_path: Path) -> None:
    found = end(f"{HEAD}{error}\n{farewell}", tmp_path)
    assert found.name == "crash" and last_line(found) == error
    assert found.evidence[0].detail["log_tail"][-1] in (error, "bye")


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("last words\n", "last words"),
        ("cannot go on\n" + FAREWELLS["wandb"], "cannot go on"),
        (FAREWELLS["a progress bar"], "7%|▋         | 7/100 [00:01<00:13,  6.9it/s]"),
        (f"{HEAD}OSError: handled\n" + "more work\n" * 40 + "bad option --x\n", "bad option --x"),
        (f"{HEAD}KeyError: 'a'\n\nDuring handling of it, another one:\n\n{HEAD}ValueError: b",
         "ValueError: b"),
        ("[rank0]: Traceback (most recent call last):\n[rank0]:   f()\n[rank0]: ValueError: c\n", "ValueError: c"),
        ("terminate called after throwing an instance of 'std::runtime_error'\n  what():  no\n",
         "terminate called after throwing an instance of 'std::runtime_error'"),
        ("Fatal Python error: Segmentation fault\n\nCurrent thread 0x1:\n  File \"t.py\", line 3\n",
         "Fatal Python error: Segmentation fault"),
    ],
)  # fmt: skip
def test_the_line_that_says_most(log: str, line: str, tmp_path: Path) -> None:
    assert last_line(end(log, tmp_path)) == line


MEMORY = (Path(__file__).parent / "words_of_memory.txt").read_text(encoding="utf-8").strip().split("\n\n")
FATAL_MEMORY = (
    "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
    "memory allocation of 99999999 bytes failed\n",
    "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.\n",
    "[LightGBM] [Fatal] Cannot allocate memory\n",
    "CUDA error: out of memory\n",
)


@pytest.mark.parametrize("farewell", [FAREWELLS["nothing"], FAREWELLS["wandb"], FAREWELLS["some lines"]])
@pytest.mark.parametrize("error", MEMORY)
def test_want_of_memory_in_a_traceback(error: str, farewell: str, tmp_path: Path) -> None:
    assert end(f"{HEAD}{error}\n{farewell}", tmp_path).name == "out_of_memory"
    assert end(f"{HEAD}{error}\n{farewell}", tmp_path, logged=False).name == "out_of_memory"


@pytest.mark.parametrize("words", FATAL_MEMORY)
def test_want_of_memory_without_a_traceback(words: str, tmp_path: Path) -> None:
    assert end(f"epoch 1\n{words}{FAREWELLS['wandb']}", tmp_path, -6).name == "out_of_memory"


@pytest.mark.parametrize(
    "log",
    [
        "warning: CUDA out of memory, retrying with half the batch\nbad option\n",
        "CUDA out of memory; skipping this batch\n",
        f"watch out of memory leaks\n{HEAD}ValueError: x\n",
        f"CUDA out of memory. Tried to allocate 2 GiB\n{HEAD}ValueError: x\n",
        f"{HEAD}torch.OutOfMemoryError: CUDA out of memory\n" + "smaller batch\n" * 40 + "no data left\n",
        f"{HEAD}torch.OutOfMemoryError: CUDA out of memory\nsmaller batch\n{HEAD}ValueError: x\n",
        f"{HEAD}KeyError: 'out of memory'\n",
        f"{HEAD}FileNotFoundError: [Errno 2] No such file or directory: 'MemoryError.txt'\n",
        f"{HEAD}RuntimeError: unable to open shared memory object </torch_1> in read-write mode\n",
        f"{HEAD}ValueError: x\n{FAREWELLS['an ignored exception at exit']}",
        "memory: 3 GiB\nlost connection\n",
    ],
)
def test_memory_in_other_lines_is_none_of_it(log: str, tmp_path: Path) -> None:
    assert end(log, tmp_path).name == "crash"


NAN = (Path(__file__).parent / "words_of_nan.txt").read_text(encoding="utf-8").strip().split("\n\n")


@pytest.mark.parametrize("farewell", [FAREWELLS["nothing"], FAREWELLS["wandb"], FAREWELLS["an ignored exception"]])
@pytest.mark.parametrize("error", NAN)
def test_nan_is_a_failure_of_the_training(error: str, farewell: str, tmp_path: Path) -> None:
    found = end(f"{HEAD}{error}\n{farewell}", tmp_path)
    assert found.name == "numerical_instability" and last_line(found) == error.split("\n")[0]
    assert found.trusts(63) and not found.trusts(64)  # what was saved before the newest metrics may be good


def test_an_assertion_of_finite_numbers_needs_no_words(tmp_path: Path) -> None:
    log = 'Traceback (most recent call last):\n  File "t.py", line 3\n    assert not torch.isnan(loss)\n'
    assert end(f"{log}AssertionError\n", tmp_path).name == "numerical_instability"
    assert end(f"{log}           ^^^^^^^^^^^^^^^^^\nAssertionError\n", tmp_path).name == "numerical_instability"


@pytest.mark.parametrize(
    "error",
    ["KeyError: 'nan'", "ValueError: invalid literal for int() with base 10: 'nan'", "TypeError: 'nan' is no string",
     "ValueError: unknown option nan_policy", "AssertionError: No inf checks were recorded for this optimizer.",
     "ValueError: information is missing", "AssertionError"],
)  # fmt: skip
def test_the_word_alone_is_none(error: str, tmp_path: Path) -> None:
    assert end(f"loss nan\n{HEAD}{error}\n", tmp_path).name == "crash"


def test_before_the_first_metric_nan_may_be_in_the_data(tmp_path: Path) -> None:
    assert end(f"{HEAD}ValueError: Input contains NaN\n", tmp_path, logged=False).name == "crash"
    found = end(f"{HEAD}RuntimeError: loss is nan\n", tmp_path, logged=False)
    assert found.name == "numerical_instability" and found.failed_from_the_start


def test_nothing_said() -> None:
    said = LastWords(())
    assert said.line is None and said.essential == () and said.tail() == () and not said.of_memory
    assert not said.of_nan(in_training=True)
