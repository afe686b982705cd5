"""What the end of a log says of the end of its program, whatever libraries print after it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pipeline.attempt.file import EXIT_OUT_OF_MEMORY
from pipeline.attempt.start import FailedStart
from pipeline.experiment.conclude import verdict_at_exit, with_exit
from pipeline.health.verdict import Evidence, Verdict
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
        ("cannot go on\n" + FAREWELLS["the lines of other tools"], "cannot go on"),
        ("ERROR:train:no disk\nbye\n", "ERROR:train:no disk"),
        ("E1127 06:00:00.123 train.cc:7] no disk\nbye\n", "E1127 06:00:00.123 train.cc:7] no disk"),
        ("  0%|          | 0/10 [00:00<?, ?it/s]Traceback (most recent call last):\n  f()\nOdd: d\n", "Odd: d"),
        ("╭──── Traceback (most recent call last) ────╮\n│ f()  │\n╰───────────╯\nOdd: e\n", "Odd: e"),
        ((f"{HEAD}ValueError: f\n{HEAD}torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
         "====\ntrain.py FAILED\n"), "ValueError: f"),
        ((f"{HEAD}ValueError: g\n{HEAD}subprocess.CalledProcessError: Command '['python', 't.py']' returned non-zero "
         "exit status 1.\n"), "ValueError: g"),
        (("ValueError: Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
         "  f()\nValueError: h\n"), "ValueError: h"),
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


@pytest.mark.parametrize(
    "log",
    ["", *(FAREWELLS[name] for name in ("a progress bar", "warnings", "mlflow", "the lines of other tools")),
     "epoch 1 of 3\n" * 3 + "t.py:9: UserWarning: odd\n  x = f(y)\n", f"{HEAD}KeyError: 1\n" + "epoch\n" * 40,
     "UserWarning: a rate of 0 learns nothing\n"],
)  # fmt: skip
def test_where_no_exception_was_printed_nothing_is_called_the_cause(log: str, tmp_path: Path) -> None:
    found = end(log, tmp_path, 3)
    assert found.name == "crash" and found.sentence.startswith("exit code 3, no exception was printed")
    for word in ("Warning", "ladder:", "View run", "it/s", "KeyError", "INFO"):
        assert word not in found.sentence
    assert list(found.evidence[0].detail["log_tail"]) == log.splitlines()[-20:]
    started = FailedStart.of(end(log, tmp_path, 3, logged=False))
    assert started is not None and (
        started.words == "exit code 3, no exception was printed" or "epoch" in started.words
    )


def test_a_trainer_that_was_killed_owes_no_exception(tmp_path: Path) -> None:
    assert "exception" not in end("epoch 1\n", tmp_path, -15).sentence
    assert "exception" not in end("epoch 1\n", tmp_path, 137).sentence
    assert "no exception was printed" in end("epoch 1\n", tmp_path, -11).sentence


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


@pytest.mark.parametrize(
    "log",
    [(f"{HEAD}ValueError: loss is nan\n\nThe above exception was the direct cause of the following exception:\n\n"
     f"{HEAD}RuntimeError: step 3 failed\n"),
     (f"{HEAD}ValueError: loss is nan\n\nDuring handling of the above exception, another exception occurred:\n\n"
     f"{HEAD}RuntimeError: the pool is closed\n"),
     f"{HEAD}RuntimeError: loss is nan\n{HEAD}torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n",
     "Loss is nan, stopping training\n{'loss_box': tensor(nan)}\nbye\n", "loss is not finite\n",
     "2026-11-27 06:00:00 ERROR train: loss is nan, aborting\n"],
)  # fmt: skip
def test_nan_behind_another_error_or_in_the_last_lines(log: str, tmp_path: Path) -> None:
    assert end(log, tmp_path).name == end(log, tmp_path, logged=False).name == "numerical_instability"


@pytest.mark.parametrize("rows", [3, 256, 1000])
def test_a_whole_tensor_may_follow_the_error(rows: int, tmp_path: Path) -> None:
    error = "ValueError: Expected parameter logits to satisfy the constraint Real(), but found invalid values:"
    values = ["tensor([[nan, nan],", *["        [nan, nan],"] * rows, "        [nan, nan]], grad_fn=<SubBackward0>)"]
    found = end(HEAD + "\n".join([error, *values]), tmp_path)
    assert found.name == "numerical_instability" and last_line(found) == error
    tail = found.evidence[0].detail["log_tail"]
    assert error in tail and len(tail) <= 20


def test_an_assertion_of_finite_numbers_needs_no_words(tmp_path: Path) -> None:
    log = 'Traceback (most recent call last):\n  File "t.py", line 3\n    assert not torch.isnan(loss)\n'
    assert end(f"{log}AssertionError\n", tmp_path).name == "numerical_instability"
    assert end(f"{log}           ^^^^^^^^^^^^^^^^^\nAssertionError\n", tmp_path).name == "numerical_instability"


@pytest.mark.parametrize(
    "error",
    ["KeyError: 'nan'", "ValueError: invalid literal for int() with base 10: 'nan'", "TypeError: 'nan' is no string",
     "ValueError: unknown option nan_policy", "AssertionError: No inf checks were recorded for this optimizer.",
     "ValueError: information is missing", "AssertionError", "BananaError: ripe", "ValueError: model exploded view"],
)  # fmt: skip
def test_the_word_alone_is_none(error: str, tmp_path: Path) -> None:
    assert end(f"loss nan\n{HEAD}{error}\n", tmp_path).name == "crash"


@pytest.mark.parametrize("last", ["step 3: loss is nan, skipped\nbad option --x\n", "retrying, loss is nan\n", "nan\n"])
def test_nan_that_was_passed_by_is_none_of_it(last: str, tmp_path: Path) -> None:
    assert end(last, tmp_path).name == "crash"


BROKEN = Evidence(rule="nan_loss", metric="loss", values=(math.nan,), threshold="NaN or infinite", onset_step=40,
                  last_good_step=30, detection_step=40)  # fmt: skip


def test_a_metric_that_was_no_number_comes_first_and_the_exception_beside_it(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text(f"{HEAD}IndexError: index 9 is out of bounds\n", encoding="utf-8")
    found = verdict_at_exit(Exit.of(1, log, 0), logged=True, last_step=40, broken=BROKEN)
    assert found.name == "numerical_instability" and found.evidence[0] == BROKEN
    assert "loss nan" in found.sentence.split(";")[0] and "IndexError: index 9" in found.sentence.split(";")[1]
    assert found.trusts(29) and not found.trusts(30) and not found.failed_from_the_start
    by_rule = with_exit(Verdict(name="numerical_instability", evidence=(BROKEN,)), Exit.of(1, log, 0), 40)
    assert by_rule == found
    assert with_exit(by_rule, Exit.of(0, log, 0), 40) is by_rule
    for code in (-9, -15, EXIT_OUT_OF_MEMORY):  # what others have ended has not died of its numbers
        assert verdict_at_exit(Exit.of(code, log, 0), logged=True, broken=BROKEN).name != "numerical_instability"


def test_before_the_first_metric_nan_may_be_in_the_data(tmp_path: Path) -> None:
    assert end(f"{HEAD}ValueError: Input contains NaN\n", tmp_path, logged=False).name == "crash"
    found = end(f"{HEAD}RuntimeError: loss is nan\n", tmp_path, logged=False)
    assert found.name == "numerical_instability" and found.failed_from_the_start


def test_nothing_said() -> None:
    said = LastWords(())
    assert said.line is None and said.essential == () and said.tail() == () and not said.of_memory
    assert not said.of_nan(in_training=True)
