"""What is to be known of an attempt beside its verdict and its rules: `remarks.json` in its folder.

A subject, such as the key of the configuration that it is about, has some sentences. They are on the attempt's own disk
when its end is written down, whoever does that, and become warnings of its run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.folder import AttemptFolder
from pipeline.health.verdict import Evidence
from pipeline.secrets import without_passwords

_LONGEST, _MOST = 400, 10
"""Characters of a sentence, and sentences of a subject."""


def remark(folder: AttemptFolder, subject: str, sentences: Iterable[str]) -> None:
    """Replaces what is said of a subject; no sentence leaves it as it is. Where nothing can be written, nothing is."""
    kept = [each if len(each) <= _LONGEST else f"{each[:_LONGEST]}…" for each in sentences]
    kept = [*kept[:_MOST], f"and {len(kept) - _MOST} more"] if len(kept) > _MOST else kept
    if kept and (known := _read(folder)) | {subject: kept} != known:
        with contextlib.suppress(OSError):
            write_atomically(folder.remarks, without_passwords(json.dumps(known | {subject: kept}, indent=2)))


def remarks(folder: AttemptFolder) -> list[Evidence]:
    """All that was said, one warning for each subject."""
    return [Evidence(rule=subject, detail={"reason": "; ".join(said)}) for subject, said in _read(folder).items()]


def _read(folder: AttemptFolder) -> dict[str, list[str]]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(folder.remarks.read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return {str(subject): [str(each) for each in said] for subject, said in known.items()}
    return {}
