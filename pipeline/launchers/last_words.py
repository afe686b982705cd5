"""The last words of a trainer: the lines of its log that say why it has ended, among all that is printed after them.

A library says farewell when a program dies, a progress bar is drawn once more, and Python warns of what was left
behind. The error stands above that: the last line of the last traceback, or a line that a program dies with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

_MOST_AFTER = 12
"""Lines after an error, without noise, with which it still counts as the end; more: the program went on."""
_LINES_OF_ERROR = 12
"""Lines of an error's text that are searched: the values that it complains of may follow in lines of their own."""
_LAST = 6
"""Last lines, without noise, among which an error without a traceback may stand."""
_PREFIX = re.compile(
    r"^(?:\[(?:rank|default)\d+\]:\s?|\(\w[^()]* pid=\d+[^()]*\)\s?|\d+: (?=Traceback|\s|\w+(?:\.\w+)*Error:))"
)
"""What launchers of several processes put before each line: torchrun, Ray, srun."""
_TRACEBACK = re.compile(r"^(?:\s*\+ )?(?:Exception Group )?Traceback \(most recent call last\)")
_IGNORED = re.compile(
    r"^(?:Exception ignored |Error in atexit|--- Logging error ---|Exception in thread .*(?:[Mm]onitor|wandb))"
)
"""What stands before the traceback of an error that ends nothing."""
_FINAL = re.compile(
    r"^(?:[\w<>]+\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Failure|Fault|Group)\w*(?::|$)"
    r"|^[a-z_]+(?:\.\w+)+(?:Error|Exception):"
)
"""The last line of a traceback, or an exception that a program prints without one."""
_FATAL = re.compile(
    r"terminate called|std::bad_alloc|Fatal Python error|FATAL ERROR|^Segmentation fault|^Bus error"
    r"|core dumped|panicked at"
    r"|^\[(?:LightGBM|XGBoost|CatBoost)\] \[Fatal\]|oom[-_ ]?kill|Out of memory: Killed"
    r"|^(?:FATAL|CRITICAL|fatal|panic)\b"
    r"|memory allocation of \d+ bytes failed|^RuntimeError\b"
)
"""What a program that is no Python dies with."""
_NOISE = re.compile(
    r"^\s*$"
    r"|^wandb:|^\W*(?:🏃|🧪|🚀)|^(?:COMET|neptune|clearml)\b|^\[neptune\]"
    r"|\d+%\|.*(?:\||it/s|s/it|\])|^\s*\d+(?:it|B) \[\d\d:\d\d"  # progress bars of tqdm
    r"|━{3,}|^\s*(?:Epoch|Training|Validation|Testing|Sanity Checking)\b.*(?:it/s|s/it)"
    r"|^(?:sys:\d+|\S+\.py:\d+|<\w+>:\d+): \w*Warning\b|^\s*warnings\.warn\(|resource_tracker|leaked \w+ objects"
    r"|^\s*(?:self|_)\.?\w*\.?(?:close|shutdown|__del__|warn)\("
    r"|^ERROR conda\.cli|^srun: |^\[\d{4}-\d\d-\d\d[^\]]*\] (?:torch\.distributed|Sending process)|^Killing subprocess"
)
_MEMORY = re.compile(
    r"\b\w*MemoryError\b|OutOfMemory|out[_ ]of[_ ]memory|OUT_OF_MEMORY"
    r"|(?:can(?:'|’|no)?t|could not|unable to|failed to) allocate (?:memory|internal|array|\d|[\d.]+ ?[KMGT]i?B)"
    r"|(?:not enough|insufficient) (?:free )?(?:\w+ )?memory|\bOOM\b|oom[-_ ]?kill"
    r"|RESOURCE_EXHAUSTED.*(?:[Mm]emory|alloc|OOM)"
    r"|std::bad_alloc|bad allocation|[Mm]emory allocation (?:error|failed|of \d+ bytes failed)"
    r"|cudaErrorMemoryAllocation"
    r"|(?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED|\[Errno 12\]|(?:malloc|calloc|realloc|mmap)\b.* failed"
    r"|heap limit|[Mm]emory limit",
    re.IGNORECASE,
)
_PASSED_BY = re.compile(
    r"\b(?:retry|retries|retrying|retried|skip|skipp\w+|reduc\w+|falling back|fall back|halv\w+|avoid\w*|prevent\w*"
    r"|instead|if you|continu\w+|recover\w*|to fix|hint|help|no longer|caught|handled|in case of|on out)\b",
    re.IGNORECASE,
)
"""A line that tells of want of memory and of what was done about it."""
_OF_NAMES = re.compile(
    r"^(?:\w+\.)*(?:Key|Name|Attribute|Import|ModuleNotFound|FileNotFound|FileExists|IsADirectory|Syntax|Indentation|Type|Index"
    r"|Unicode\w*|NotImplemented)Error\b"
)
"""Errors whose words are names out of the program or its data: NaN or memory there is one of those."""
_NAN_WORD = r"(?:\bnan(?:s|\(s\))?\b|\binf(?:s|inity|inities)?\b|\b(?:not|non)[- ]?finite\b|\bnonfinite\b)"
_NAN = re.compile(
    r"\b(?:contains?|containing|found|has|have|had|is|are|was|were|got|returned?|produced?|became|becomes?|detected"
    rf"|encountered|convert float|invalid values?|must not be|went|turned)\b[^.]{{0,60}}?{_NAN_WORD}"
    rf"|{_NAN_WORD}[^.]{{0,40}}?\b(?:detected|found|encountered|values?|loss(?:es)?|gradients?|grads?"
    r"|global norm|during|in)\b"
    r"|\w*FloatingPointError|satisfy the constraint \S*Real\(\)|loss scale already at minimum|NanLoss",
    re.IGNORECASE,
)
_NAN_OF_TRAINING = re.compile(
    r"FloatingPointError|loss|grad|logit|action|parameter|weight|probab|backward|returned nan|polic|reward|\bnorm|scale"
    r"|activation|layer|output|tensor",
    re.IGNORECASE,
)
_ASSERTS_FINITE = re.compile(r"^\s+assert\b.*\bis_?(?:nan|finite|inf)\b", re.IGNORECASE)


@dataclass(frozen=True)
class LastWords:
    """What the end of a log says."""

    lines: tuple[str, ...]
    """The last lines of the log: some hundred, if there are so many."""

    @cached_property
    def _told(self) -> list[str]:
        return [_PREFIX.sub("", line.rstrip()) for line in self.lines]

    @cached_property
    def _error(self) -> int | None:
        """The index of the line that names the error; None: no error stands near the end."""
        found = _last_error(self._told)
        if found is None:
            return None
        after = [line for line in self._told[found + 1 :] if not _NOISE.search(line)]
        return found if len(after) <= _MOST_AFTER + _own_lines(self._told, found) else None

    @cached_property
    def line(self) -> str | None:
        """The line that says most of why it has ended; None: it has said nothing."""
        if self._error is not None:
            return self._told[self._error].strip()
        said = [line for line in self._told if line.strip()]
        meant = [line for line in said if not _NOISE.search(line)]
        return (meant or said)[-1].strip() if said else None

    @property
    def essential(self) -> tuple[str, ...]:
        """The last lines without noise; the last one names the error, where there is one."""
        lines = self._told if self._error is None else self._told[: self._error + 1]
        return tuple(line for line in lines if not _NOISE.search(line))

    def tail(self, count: int = 20) -> tuple[str, ...]:
        """The last lines as they are: up to the error's, where there is one."""
        end = len(self.lines)
        if self._error is not None:
            end = self._error + 1 + _own_lines(self._told, self._error)
        return self.lines[max(0, end - count) : end]

    @property
    def _text(self) -> str:
        """The error's own text; empty: there is no error."""
        if self._error is None:
            return ""
        return "\n".join(self._told[self._error : self._error + _LINES_OF_ERROR])

    @property
    def of_memory(self) -> bool:
        """Whether it has ended for want of memory."""
        if self._error is not None:
            named = self._told[self._error]
            own = self._told[self._error : self._error + 1 + _own_lines(self._told, self._error)]
            return not _OF_NAMES.search(named) and any(map(_MEMORY.search, own))
        last = [line for line in self._told if not _NOISE.search(line)][-_LAST:]
        tells = [line for line in last if _MEMORY.search(line) and not _PASSED_BY.search(line)]
        return bool(tells) and (tells[-1] == last[-1] or _names_error(tells[-1]))

    def of_nan(self, *, in_training: bool) -> bool:
        """Whether NaN or ∞ has ended it.

        Args:
            in_training: whether it had logged metrics. Before that, NaN may be in its data; then the words must tell
                of what only a training has.
        """
        if self._error is None or _OF_NAMES.search(self._told[self._error]):
            return False
        if self._told[self._error].startswith("AssertionError") and _asserts_finite(self._told[: self._error]):
            return True
        text = self._text if "invalid values" in self._told[self._error] else self._told[self._error]
        found = _NAN.search(text)
        return found is not None and (in_training or _NAN_OF_TRAINING.search(text) is not None)


def _last_error(lines: Sequence[str]) -> int | None:
    """The index of the line that names the last error which may have ended the program."""
    found: int | None = None
    inside, ignored = False, False
    before = ""
    for index, line in enumerate(lines):
        if _TRACEBACK.search(line):
            inside, ignored = True, _IGNORED.search(before) is not None
        elif inside and line.strip() and not line[0].isspace() and not line.lstrip().startswith(("|", "+")):
            inside = False
            found = found if ignored else index
        elif not inside and not line[:1].isspace() and not _is_ignored(before) and _names_error(line):
            found = index
        if line.strip():
            before = line
    return found


def _is_ignored(before: str) -> bool:
    """Whether what follows this line is an error that ends nothing."""
    return _IGNORED.search(before) is not None


def _names_error(line: str) -> bool:
    """Whether a line names an error by which a program dies."""
    if _NOISE.search(line) or _IGNORED.search(line):
        return False
    final = _FINAL.search(line)
    return (final is not None and "Warning" not in final.group()) or _FATAL.search(line) is not None


def _own_lines(lines: Sequence[str], error: int) -> int:
    """How many lines after an error's belong to it, such as values and hints: up to a blank line or noise."""
    count = 0
    for line in lines[error + 1 : error + _LINES_OF_ERROR]:
        if _NOISE.search(line) or _IGNORED.search(line) or _TRACEBACK.search(line):
            break
        count += 1
    return count


def _asserts_finite(before: Sequence[str]) -> bool:
    """Whether the last source line of a traceback, above the marks (^^^) if it has any, asserts finite numbers."""
    source = [line for line in before[-2:] if set(line.strip()) - set("^~")]
    return bool(source) and _ASSERTS_FINITE.search(source[-1]) is not None
