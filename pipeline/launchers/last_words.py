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
_TRACEBACK = re.compile(
    r"^(?:\s*\+ )?(?:Exception Group )?Traceback \(most recent call last\)|Traceback \(most recent call last\):$"
)
"""At the start of a line, or behind a progress bar that has not ended its own."""
_FRAMED = re.compile(r"^╰─+╯$")
"""The end of a traceback as Rich draws it; the error follows."""
_CHAINED = re.compile(r"^(?:During handling of the above exception, another|The above exception was the direct cause)")
_WRAPPER = re.compile(
    r"\bChildFailedError\b|\bCalledProcessError: .*(?:non-zero exit status|died with)|\bBrokenProcessPool\b"
    r"|DataLoader worker \(pid.* exited unexpectedly"
)
"""Errors of a process that only tells that another one has died, whose own error stands before it."""
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
    r"|━{3,}|[█▉▊▋▌▍▎▏]{2,}|^\s*\d+/\d+ \[[=>.#-]+\]|\d+%\s*\[[=>.# -]+\]|\[[=>.# -]{4,}\]\s*\d+%"
    r"|^\s*(?:Epoch|Training|Validation|Testing|Sanity Checking)\b.*(?:it/s|s/it)"
    r"|^\s*warnings\.warn\(|resource_tracker|leaked \w+ objects|^ladder: .*\(trainer\.redirect: false"
    r"|^\s*(?:self|_)\.?\w*\.?(?:close|shutdown|__del__|warn)\("
    r"|^ERROR conda\.cli|^srun: |^\[\d{4}-\d\d-\d\d[^\]]*\] (?:torch\.distributed|Sending process)|^Killing subprocess"
)
_WARNING = re.compile(r"^(?:sys|<[^>]*>|.*\.py[cx]?):\d+: (?:\w+\.)*\w*Warning\b")
"""The first line of a warning of Python's. Its text may have more; the line of the source follows, indented."""
_LINES_OF_WARNING = 6
_TALK = re.compile(
    r"^.{0,80}?\b(?:INFO|DEBUG|TRACE|NOTICE|WARN|WARNING)\b|^[IWD]\d{4} |^\[[IWD] \d|^(?:\w*Warning|warning): "
)
"""What a program logs while all is well, or as a warning."""
_LOGGED_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b|^(?:\S+: )?error: |^E\d{4} |^\[E \d", re.IGNORECASE)
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
_NAN_WORD = r"(?:\bnan(?:s|\(s\))?\b|\binf(?:s|inite|inity|inities)?\b|\b(?:not|non)[- ]?finite\b|\bnonfinite\b)"
_NAN = re.compile(
    r"\b(?:contain(?:s|ed|ing)?|found|has|have|had|is|are|was|were|got|returned?|produced?|became|becomes?|detected"
    rf"|encountered|convert float|invalid values?|must not be|went|turned)\b[^.]{{0,60}}?{_NAN_WORD}"
    rf"|{_NAN_WORD}[^.]{{0,40}}?\b(?:detected|found|encountered|values?|loss(?:es)?|gradients?|grads?"
    r"|global norm|during|in)\b"
    r"|\w*FloatingPointError|satisfy the constraint \S*Real\(\)|loss scale already at minimum|NanLoss"
    r"|^[\w.]*(?-i:Non_?Finite|NotFinite|NaN|(?<=[a-z])Nan(?=[A-Z:])|Diverge)\w*(?::|$)"
    r"|\b(?:training|loss|model|optimi[sz]ation|polic\w+)\b.{0,30}\b(?:diverged|diverging)\b"
    r"|\b(?:loss|gradients?)\b.{0,30}\b(?:exploded|blew up|overflow(?:ed)?)\b",
    re.IGNORECASE,
)
_VALUES = re.compile(r"^\s+(?:[\[(\d.-]|nan\b|inf\b)")
"""A row of a tensor or an array."""
_OF_NUMBERS = re.compile(
    r"^(?:\w+\.)*_?LinAlgError\b|\blinalg\.\w+: |did not converge|failed to converge|positive[- ]definite"
    r"|^OverflowError: (?:math range error|\(34,|cannot convert float)",
    re.IGNORECASE,
)
"""What numerical mathematics dies of: weights that have gone astray, once a training has begun."""
_STOPS = re.compile(
    r"\b(?:stop\w*|abort\w*|exit\w*|terminat\w+|giv(?:e|ing) up|quit\w*|halt\w*|diverged)\b", re.IGNORECASE
)
_NAN_OF_TRAINING = re.compile(
    r"FloatingPointError|loss|grad|logit|action|parameter|weight|probab|backward|returned nan|polic|reward|\bnorm|scale"
    r"|activation|layer|output|tensor",
    re.IGNORECASE,
)
_ASSERTS_FINITE = re.compile(r"^\s+assert\b.*\bis_?(?:nan|finite|inf)\b|^\s+assert (\w+) == \1\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Errors:
    """The indices of lines that name errors."""

    last: int
    """The last one that may have ended the program."""
    named: int
    """The one that says why: the same, or the one of a process of which the last only tells that it died."""
    chain: tuple[int, ...]
    """That one, and those from which it came."""


@dataclass(frozen=True)
class LastWords:
    """What the end of a log says."""

    lines: tuple[str, ...]
    """The last lines of the log: some hundred, if there are so many."""

    @cached_property
    def _told(self) -> list[str]:
        return [_PREFIX.sub("", line.rstrip()) for line in self.lines]

    @cached_property
    def _noise(self) -> list[bool]:
        return _noise(self._told)

    def _meant(self, begin: int = 0, end: int | None = None) -> list[str]:
        """The lines from one index to another, without noise."""
        pairs = zip(self._told[begin:end], self._noise[begin:end], strict=True)
        return [line for line, noise in pairs if not noise]

    @cached_property
    def _errors(self) -> _Errors | None:
        """None: no error stands near the end."""
        found = _last_errors(self._told)
        if found is None:
            return None
        room = _MOST_AFTER + _own_lines(self._told, found.last)
        return found if len(self._meant(found.last + 1)) <= room else None

    @property
    def _error(self) -> int | None:
        """The index of the line that names the error; None: no error stands near the end."""
        return None if self._errors is None else self._errors.named

    @property
    def names_error(self) -> bool:
        """Whether an exception, or an error that a program dies of, stands near the end."""
        return self._error is not None

    @cached_property
    def line(self) -> str | None:
        """The line that says most of why it has ended; None: no line does."""
        if self._error is not None:
            return self._told[self._error].strip()
        said = [line for line in self._meant()[-_MOST_AFTER:] if not _TALK.search(line)]
        errors = [line for line in said if _LOGGED_ERROR.search(line)]
        return (errors or said)[-1].strip() if said else None

    @property
    def essential(self) -> tuple[str, ...]:
        """The last lines without noise; the last one names the error, where there is one."""
        return tuple(self._meant(0, None if self._error is None else self._error + 1))

    def tail(self, count: int = 20) -> tuple[str, ...]:
        """The last lines as they are: up to the error's, where there is one."""
        end = len(self.lines)
        if self._error is not None:
            end = self._error + 1 + min(_own_lines(self._told, self._error), _LINES_OF_ERROR)
        return self.lines[max(0, end - count) : end]

    @property
    def of_memory(self) -> bool:
        """Whether it has ended for want of memory."""
        if self._error is not None:
            named = self._told[self._error]
            own = self._told[self._error : self._error + 1 + _own_lines(self._told, self._error)]
            return not _OF_NAMES.search(named) and any(map(_MEMORY.search, own))
        last = self._meant()[-_LAST:]
        tells = [line for line in last if _MEMORY.search(line) and not _PASSED_BY.search(line)]
        return bool(tells) and (tells[-1] == last[-1] or _names_error(tells[-1]))

    @property
    def of_names(self) -> bool:
        """Whether it has died of something that has nothing to do with numbers, such as a file that is missing."""
        return self._error is not None and _OF_NAMES.search(self._told[self._error]) is not None

    def of_nan(self, *, in_training: bool) -> bool:
        """Whether NaN or ∞ has ended it.

        Args:
            in_training: whether it had logged metrics. Before that, NaN may be in its data; then the words must tell
                of what only a training has.
        """
        if self._errors is not None:
            return any(self._tells_of_nan(index, in_training) for index in self._errors.chain)
        last = [line for line in self._meant()[-_LAST:] if not _PASSED_BY.search(line)]
        tells = [line for line in last if _NAN.search(line) and _NAN_OF_TRAINING.search(line)]
        return any(_STOPS.search(line) or line == last[-1] for line in tells)

    def _tells_of_nan(self, index: int, in_training: bool) -> bool:
        """Whether the error at this line is one of NaN or ∞."""
        named = self._told[index]
        if _OF_NAMES.search(named):
            return False
        if named.startswith("AssertionError") and _asserts_finite(self._told[:index]):
            return True
        if in_training and _OF_NUMBERS.search(named):
            return True
        text = named
        if "invalid values" in named:
            text = " ".join(self._told[index : index + _LINES_OF_ERROR])
            if in_training and "satisfy the constraint" in named:
                return re.search(_NAN_WORD, text, re.IGNORECASE) is not None
        found = _NAN.search(text)
        return found is not None and (in_training or _NAN_OF_TRAINING.search(text) is not None)


def _noise(lines: Sequence[str]) -> list[bool]:
    """Which of the lines say nothing of an end: farewells, progress bars, warnings of Python's with all their lines."""
    found = [_NOISE.search(line) is not None for line in lines]
    for index, line in enumerate(lines):
        if not _WARNING.search(line):
            continue
        found[index] = True
        for source in range(index + 1, min(len(lines), index + 1 + _LINES_OF_WARNING)):
            if _TRACEBACK.search(lines[source]) or _names_error(lines[source]) or _WARNING.search(lines[source]):
                break
            if lines[source][:1].isspace():
                found[index : source + 1] = [True] * (source + 1 - index)
                break
    return found


def _last_errors(lines: Sequence[str]) -> _Errors | None:
    """The lines that name the last error which may have ended the program."""
    last: _Errors | None = None
    inside = ignored = chained = framed = False
    before = ""
    for index, line in enumerate(lines):
        named = False
        if _TRACEBACK.search(line):
            inside, ignored = True, _is_ignored(before)
        elif inside and line.strip() and not line[0].isspace() and not line.lstrip().startswith(("|", "+")):
            inside, named = False, not ignored
        elif framed and line.strip():
            named = True
        elif not inside and not line[:1].isspace() and not _is_ignored(before):
            named = _names_error(line)
        if named:
            if last is not None and _WRAPPER.search(line):
                last = _Errors(index, last.named, last.chain)
            else:
                last = _Errors(index, index, (*last.chain, index) if last is not None and chained else (index,))
            chained = False
        if line.strip():
            before, framed = line, _FRAMED.search(line) is not None
            chained = chained or _CHAINED.search(line) is not None
    return last


def _is_ignored(before: str) -> bool:
    """Whether what follows this line is an error that ends nothing."""
    return _IGNORED.search(before) is not None


def _names_error(line: str) -> bool:
    """Whether a line names an error by which a program dies."""
    if _NOISE.search(line) or _IGNORED.search(line) or _WARNING.search(line):
        return False
    final = _FINAL.search(line)
    return (final is not None and "Warning" not in final.group()) or _FATAL.search(line) is not None


def _own_lines(lines: Sequence[str], error: int) -> int:
    """How many lines after an error's belong to it, such as values and hints: up to a blank line or noise.

    A whole tensor may be printed, in as many lines as it has rows.
    """
    count = 0
    for line in lines[error + 1 :]:
        if any(each.search(line) for each in (_NOISE, _IGNORED, _TRACEBACK, _WARNING)):
            break
        if count >= _LINES_OF_ERROR and not _VALUES.search(line):
            break
        count += 1
    return count


def _asserts_finite(before: Sequence[str]) -> bool:
    """Whether the last source line of a traceback, above the marks (^^^) if it has any, asserts finite numbers."""
    source = [line for line in before[-2:] if set(line.strip()) - set("^~")]
    return bool(source) and _ASSERTS_FINITE.search(source[-1]) is not None
