"""What has happened in one attempt, and its line in the table of attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.attempt.checkpoint_files import Checkpoint
from pipeline.attempt.file import AttemptFile, WarmStart
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Verdict

UNKNOWN_QUALITY = "unknown"
TO_THE_END = "to the end"
"""The column that says whether an attempt was trained to its end."""


def label_of(rung: str, remedy: str | None) -> str:
    """How an attempt is called in lines and tables: its rung, and the remedy that was tried on it."""
    return f"{rung} + {remedy}" if remedy else rung


@dataclass(frozen=True)
class Attempt:
    """One attempt that has ended: what the ladder decides by."""

    number: int
    rung: str
    config: ExperimentConfig
    run_id: str
    verdict: Verdict
    checkpoints: tuple[Checkpoint, ...] = ()
    warm_start: WarmStart | None = None
    remedy: str | None = None
    """The remedy that was tried on the rung; None: the rung as it is."""

    @classmethod
    def of(cls, file: AttemptFile, verdict: Verdict, checkpoints: tuple[Checkpoint, ...] = ()) -> Attempt:
        """The attempt that a file describes, ended with this verdict."""
        return cls(
            number=file.number,
            rung=file.rung,
            config=file.config,
            run_id=file.run_id,
            verdict=verdict,
            checkpoints=checkpoints,
            warm_start=file.warm_start,
            remedy=file.remedy,
        )

    @property
    def label(self) -> str:
        return label_of(self.rung, self.remedy)


@dataclass(frozen=True)
class AttemptSummary:
    """What an attempt came to: one row of the table on the terminal, in the note, and in `attempts.json`."""

    attempt: int
    rung: str
    """With the remedy, if one was tried."""
    verdict: str
    evidence: str
    start: str
    """Where it started: `scratch`, or the episode of the checkpoint (for a script's own: the step)."""
    episodes: int
    steps: int
    """Environment steps of the training's schedule, so with what was carried over."""
    minutes: float
    score: float | None
    best_score: float | None
    quality: str
    """Whether the policy is better than random play: a value of the tag `ladder.quality`."""
    run_id: str
    to_the_end: bool = False
    """Whether it was trained to its end, so that its score may stand for its rung."""

    @classmethod
    def of(
        cls,
        attempt: Attempt,
        latest: Mapping[str, float],
        last_step: int,
        seconds: float,
        quality: str = UNKNOWN_QUALITY,
    ) -> AttemptSummary:
        """The summary of an attempt.

        Args:
            latest: newest value of each metric.
            last_step: the step of the newest metric; -1 where none was logged.
            seconds: wall clock of the attempt, all of its parts if it was interrupted.
            quality: as the field.
        """
        start = attempt.warm_start
        return cls(
            attempt=attempt.number,
            rung=attempt.label,
            verdict=attempt.verdict.name,
            evidence=attempt.verdict.sentence,
            start=f"{attempt.config.trainer.counts} {start.episode}" if start else "scratch",
            episodes=int(latest.get("episodes", 0)),
            steps=int(max(0, last_step)),
            minutes=round(seconds / 60, 1),
            score=_rounded(latest.get("score_window")),
            best_score=_rounded(latest.get("best/score_window")),
            quality=quality,
            run_id=attempt.run_id,
            to_the_end=attempt.verdict.trained_to_the_end,
        )

    @property
    def sentence(self) -> str:
        """The numbers in a line."""
        scores = [f"{name} {value}" for name, value in self.scores.items() if value is not None]
        counted = [(self.episodes, "episodes"), (self.steps, "steps")]
        parts = [*scores, *(f"{count:,} {of}" for count, of in counted if count), f"{self.minutes} min"]
        return ", ".join([*parts, f"from {self.start}"])

    @property
    def scores(self) -> dict[str, float | None]:
        return {"score": self.score, "best score": self.best_score}

    @property
    def row(self) -> dict[str, Any]:
        """By the names that people read, in the order of the table's columns."""
        names = {"start": "from", "best_score": "best score", "to_the_end": TO_THE_END}
        row = {names.get(name, name): value for name, value in asdict(self).items()}
        row[TO_THE_END] = "yes" if self.to_the_end else "no"
        return row | {"quality": None if self.quality == UNKNOWN_QUALITY else self.quality.replace("_", " ")}


def best_of(attempts: Sequence[AttemptSummary]) -> AttemptSummary | None:
    """The attempt with the best score at its end, of those that were trained to the end; None: there is none."""
    whole = [each for each in attempts if each.to_the_end and each.score is not None]
    return max(whole, key=lambda each: each.score or 0.0, default=None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
