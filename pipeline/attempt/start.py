"""A start that failed: the trainer has ended before its first metric. What it says, and when two are alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pipeline.health.verdict import Evidence, Verdict

START = "start"
"""The rule of the evidence where a trainer has ended before its first metric."""
_VARIES = re.compile(
    r"0x[0-9a-fA-F]+"  # addresses
    r"|(?<![\w/])~?(?:/[^\s'\":,()]+)+"  # paths
    r"|\b[0-9a-f]{8,}\b"  # ids
    r"|\d+(?:[.:,\-]\d+)*"  # numbers, dates, times
)
_BY_SIGNAL = 128
"""Shells report a death by signal n as 128 + n."""


@dataclass(frozen=True)
class FailedStart:
    """What a verdict says of a start that failed."""

    words: str
    certain: bool
    """Whether another try fails too, whatever the parameters."""
    by_signal: bool
    key: tuple[str, str]

    @classmethod
    def of(cls, verdict: Verdict) -> FailedStart | None:
        """None: the trainer has logged something, or it has not died by itself."""
        if verdict.name != "crash" or not verdict.evidence or verdict.evidence[0].rule != START:
            return None
        detail = verdict.evidence[0].detail
        code, signal = detail.get("exit code"), detail.get("signal")
        said = str(detail.get("last line", detail.get("cause", "")))
        silent = f"signal {signal}" if signal is not None else f"exit code {code}, no exception was printed"
        words = detail.get("cause") or said or silent
        by_signal = signal is not None or (isinstance(code, int) and code > _BY_SIGNAL)
        return cls(str(words), bool(detail.get("certain")), by_signal, (str(signal or code), masked(said)))

    def is_like(self, other: FailedStart | None) -> bool:
        """Whether two deaths have the same exit code and last line, whatever numbers, paths and times are in it."""
        return other is not None and self.key == other.key


def failed_start(detail: dict[str, Any]) -> Evidence:
    """The evidence of a start that failed."""
    return Evidence(rule=START, detail=detail)


def masked(line: str) -> str:
    """A line without what differs from one run of a program to the next: addresses, paths, ids, numbers, times."""
    return _VARIES.sub("…", line).strip()
