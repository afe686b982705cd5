"""A comparison as pandas frames, for a notebook and for the page. Times are UTC; scores are as they were logged.

The tables name the columns in the order of the frames. The fields of :class:`ExperimentRow` and :class:`AttemptRow` are
the same columns.

`experiments`, one row for each parent run, oldest first:

| column | type | meaning |
|---|---|---|
| parent | str | run id |
| experiment, seed | str, Int64 | name of the MLflow experiment; `training.seed` |
| script | bool | whether its trainer is a command of the user's own |
| outcome, reason | str | healthy, compared, exhausted, interrupted, error, or running; why it ended so |
| settled_rung, settled_run | str or None | where the ladder ended healthy (as `rung`), and that attempt's run id |
| model | str or None | URI of its policy for `mlflow.pytorch.load_model` |
| started | datetime | when it began |
| minutes | float | from the parent's start to its end, or until now |
| attempts | int | number of attempts |
| score, score_low, score_high | float | score of the settled attempt, as below; NaN where there is none |
| random, random_low, random_high | float | score of random play under the same step cap, 95 % interval |

`attempts`, one row for each attempt, by experiment and number:

| column | type | meaning |
|---|---|---|
| run_id, parent, experiment, seed | | as above |
| attempt, rung | int, str | number from 0; name of the rung, with the remedy tried on it: `v3 + explore_more` |
| remedy | str or None | the remedy alone |
| verdict | str | healthy, expert_collapse …, or running |
| to_the_end | bool | trained to its end, whatever the rules have found; else cut short, or still running |
| evidence | str | the verdict's evidence in a line; empty where there is none |
| source, source_episode | str or None, Int64 | run id and number of the checkpoint it started from, or from scratch |
| counts | str | what the number of a checkpoint counts: episode, or a script's step |
| started | datetime | when it began |
| begins, minutes | float | minutes from the parent's start; duration |
| episodes, steps | int | position in the training's schedule, so with what was carried over; 0 where none are counted |
| trained_steps | int | steps of this attempt alone |
| score, score_low, score_high | float | mean of the last `training.score_window` episodes or updates, 95 % interval |
| score_interval | str | how that interval is made, and of how many updates; empty where there is none |
| random, random_low, random_high | float | as of its experiment |
| quality | str | above_random, as_random, below_random or unknown |
| best_score | float | highest windowed score |
| steps_per_second, memory_mb | float | median, maximum |
| changed | dict | dotted key → [value of the experiment, value of this attempt] |
| command | str or None | the command of a trainer of the user's own |
| checkpoint | str or None | path of the newest checkpoint, where it is on this machine |
| not_stored | list of str | what the store has not taken, and why |

`metrics`, one row for each logged value: run_id, metric (str), step (int, of the environment, or as the script counts),
minutes (float, from the parent's start), value (float). Where a metric was logged without steps (all 0), the step is
its running number. Values that are not used (:mod:`pipeline.health.readings`) are not in it; those that are NaN or
infinite are in `not_finite`, which has the same columns. Where no episodes are counted, an update is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, get_type_hints

import numpy as np
import pandas as pd

from pipeline.compare.statistics import (
    Interval,
    Statistic,
    holm,
    interval,
    paired_probability,
    permutation_p,
    probability_of_improvement,
    share_of,
    statistic_for,
)
from pipeline.health.verdict import Evidence, Verdict

_FIRST_EPISODES = 10


@dataclass(frozen=True)
class ExperimentRow:
    """A row of `experiments`."""

    parent: str
    experiment: str
    seed: int | None
    script: bool
    outcome: str
    reason: str
    settled_rung: str | None
    settled_run: str | None
    model: str | None
    started: datetime
    minutes: float
    attempts: int
    score: float
    score_low: float
    score_high: float
    random: float
    random_low: float
    random_high: float


@dataclass(frozen=True)
class AttemptRow:
    """A row of `attempts`."""

    run_id: str
    parent: str
    experiment: str
    seed: int | None
    attempt: int
    rung: str
    remedy: str | None
    verdict: str
    to_the_end: bool
    evidence: str
    source: str | None
    source_episode: int | None
    counts: str
    started: datetime
    begins: float
    minutes: float
    episodes: int
    steps: int
    trained_steps: int
    score: float
    score_low: float
    score_high: float
    score_interval: str
    random: float
    random_low: float
    random_high: float
    quality: str
    best_score: float
    steps_per_second: float
    memory_mb: float
    changed: dict[str, Any]
    command: str | None
    checkpoint: str | None
    not_stored: list[str]


def frame(kind: type[ExperimentRow | AttemptRow], rows: Sequence[ExperimentRow | AttemptRow]) -> pd.DataFrame:
    """Rows as a frame, whose columns are the fields of their class.

    Integers that may be missing are Int64. A text that is missing stays None, which pandas would make NaN.
    """
    types = get_type_hints(kind)
    made = pd.DataFrame([asdict(row) for row in rows], columns=list(types))
    for name in (name for name, type_ in types.items() if type_ == str | None):
        made[name] = pd.Series([getattr(row, name) for row in rows], dtype=object)
    return made.astype({name: "Int64" for name, type_ in types.items() if type_ == int | None})


def points(rows: Iterable[tuple[str, str, int, float, float]]) -> pd.DataFrame:
    """The frame `metrics` of (run id, metric, step, minutes, value)."""
    found = pd.DataFrame(rows, columns=["run_id", "metric", "step", "minutes", "value"])
    return found.astype({"step": "int64", "minutes": "float64", "value": "float64"})


@dataclass(frozen=True)
class Shown:
    """Which metrics of a script's experiment are shown."""

    metrics: tuple[str, ...]
    """The main ones, in their order."""
    names: dict[str, str]
    """Metric → what `trainer.names` calls it."""
    others: tuple[str, ...]
    """The names of the rest."""
    bands: bool = False
    """Whether it is judged by the rules of this project's trainer, so that their bands are meant."""


@dataclass(frozen=True)
class Comparison:
    """Experiments and their attempts, as frames."""

    experiments: pd.DataFrame
    attempts: pd.DataFrame
    metrics: pd.DataFrame
    verdicts: dict[str, Verdict]
    """Run id of an attempt → its verdict with the whole evidence."""
    warnings: dict[str, tuple[Evidence, ...]] = field(default_factory=dict)
    """Run id of an attempt → the rules that warned, or that were never judged."""
    shown: dict[str, Shown] = field(default_factory=dict)
    """Run id of the parent → its metrics, for experiments of a script."""
    older: tuple[str, ...] = ()
    """Experiments that were left out, because a newer one trains the same with the same seed; the newest first."""
    not_finite: pd.DataFrame = field(default_factory=lambda: points(()))
    """The values that are NaN or infinite, with the columns of `metrics`."""

    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    """Run id of the parent → its configuration (dotted key → value as text), in the order in which they were named."""
    target: float | None = None
    """The score that :mod:`pipeline.compare.target` asks for; None: its default."""

    @cached_property
    def called(self) -> dict[str, str]:
        """Run id of the parent → what the experiment is called: its name and seed, and its run where others are too."""
        rows = self.experiments
        names = [f"{name}, seed {seed}" for name, seed in zip(rows.experiment, rows.seed, strict=True)]
        return {
            parent: name if names.count(name) == 1 else f"{name}, run {parent[:8]}"
            for parent, name in zip(rows.parent, names, strict=True)
        }

    @cached_property
    def _finite(self) -> dict[Any, pd.DataFrame]:
        """(Run id, metric) → its rows. To look for them in the whole frame each time takes minutes for a long run."""
        return dict(iter(self.metrics.groupby(["run_id", "metric"], sort=False)))

    @cached_property
    def _not_finite(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.not_finite.groupby(["run_id", "metric"], sort=False)))

    def history(self, run_id: str, metric: str) -> pd.DataFrame:
        """One metric of one attempt: step, minutes and value, by step. A step has its newest value."""
        rows = self._finite.get((run_id, metric), self.metrics.iloc[:0])
        return rows.drop_duplicates("step", keep="last").sort_values("step")[["step", "minutes", "value"]]

    def whole_history(self, run_id: str, metric: str) -> pd.DataFrame:
        """The same, with the values that are NaN or infinite."""
        rows = [each[run_id, metric] for each in (self._finite, self._not_finite) if (run_id, metric) in each]
        joined = pd.concat(rows or [self.metrics.iloc[:0]]).sort_values(["step", "minutes"])
        return joined.drop_duplicates("step", keep="last")[["step", "minutes", "value"]]

    def running_score(self, run_id: str) -> pd.DataFrame:
        """The windowed score of one attempt, as `history`. One of more than ten episodes begins with the tenth.

        A mean over two or three would set the axis of a chart.
        """
        curve, episodes = self.history(run_id, "score_window"), self.history(run_id, "episodes")
        later = curve[~curve.step.isin(episodes.step[episodes.value < _FIRST_EPISODES])]
        return curve if later.empty else later

    @cached_property
    def statistic(self) -> Statistic:
        """What sums up scores over runs: the same for all rungs and policies, by the fewest runs of any."""
        counts = _scored(self.attempts).groupby("rung").size().tolist()
        return statistic_for([*counts, int(self.experiments.score.notna().sum())])

    def rungs(self) -> pd.DataFrame:
        """One row a rung, in the ladder's order: attempts, healthy ones, those trained to the end, minutes, and score.

        The unit is the attempt. Scores are those of attempts that were trained to their end: what was cut short has had
        fewer episodes, and says less of its rung. `seeds` are those with such a score; :meth:`cut_short` has the rest.
        `score` is the :attr:`statistic` over them, with its interval.
        """
        rows = []
        for rung, group in self.attempts.groupby("rung", sort=False):
            whole = _scored(group)
            rows.append(
                {
                    "rung": rung,
                    "attempts": len(group),
                    "healthy": int((group.verdict == "healthy").sum()),
                    "to_the_end": int(group.to_the_end.sum()),
                    "seeds": int(_seeds(whole).nunique()),
                    "minutes": float(group.minutes.sum()),
                    **_columns("score", interval(whole.score.to_numpy(), self.statistic)),
                }
            )
        return pd.DataFrame(rows).set_index("rung") if rows else pd.DataFrame()

    def cut_short(self) -> pd.DataFrame:
        """The attempts whose scores count for no rung: stopped by a verdict, dead, or interrupted. As `attempts`."""
        return self.attempts[~self.attempts.to_the_end & (self.attempts.verdict != "running")]

    def improvement(self) -> pd.DataFrame:
        """One row for each two rungs x ≠ y: P(an attempt of x scores higher than one of y), with its interval.

        `p` is that of the difference of their means by permutation, and `p_holm` the same corrected for the number of
        comparisons (NaN where there are fewer than two).

        Of attempts that were trained to their end. Where both rungs have such attempts with the same seeds (`seeds` of
        them), these are compared seed by seed, and the others left out. Where they share none (`seeds` is 0), all are
        compared with all; the difference may then be that of the seeds.
        """
        whole = {
            str(rung): {seed: each.score.to_numpy() for seed, each in found.groupby(_seeds(found), sort=False)}
            for rung, group in self.attempts.groupby("rung", sort=False)
            if len(found := _scored(group))
        }
        rows: list[dict[str, Any]] = []
        p: list[float] = []
        for (x, of_x), (y, of_y) in itertools.combinations(whole.items(), 2):
            shared = [seed for seed in of_x if seed in of_y]
            kept_x = [of_x[seed] for seed in shared or of_x]
            kept_y = [of_y[seed] for seed in shared or of_y]
            all_x, all_y = np.concatenate(kept_x), np.concatenate(kept_y)
            found = paired_probability(kept_x, kept_y) if shared else probability_of_improvement(all_x, all_y)
            means = (np.array([each.mean() for each in kept]) for kept in (kept_x, kept_y))
            p.append(permutation_p(*(means if shared else (all_x, all_y)), paired=bool(shared)))
            for first, second, of_first, of_second, chance in (
                (x, y, all_x, all_y, found),
                (y, x, all_y, all_x, found.of_the_other),
            ):
                counts = {"attempts_x": len(of_first), "attempts_y": len(of_second), "seeds": len(shared), "p": p[-1]}
                rows.append({"x": first, "y": second} | counts | _columns("probability", chance))
        for row, corrected in zip(rows, np.repeat(holm(np.array(p)), 2), strict=True):
            row["p_holm"] = corrected
        columns = ["x", "y", "attempts_x", "attempts_y", "seeds",
                   "probability", "probability_low", "probability_high", "p", "p_holm"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def profiles(self) -> pd.DataFrame:
        """The performance profile of each rung: the share of its runs that score higher than each score.

        One row for each rung and score of any run, rising: rung, runs, score, and share with its exact interval, which
        holds for one score at a time. Of attempts that were trained to their end (Agarwal et al. 2021, section 4.2).
        """
        rows = []
        scores = np.unique(_scored(self.attempts).score.to_numpy())
        for rung, group in self.attempts.groupby("rung", sort=False):
            own = _scored(group).score.to_numpy()
            rows += [
                {"rung": rung, "runs": len(own), "score": float(score), **_columns("share", share_of(own > score))}
                for score in scores
                if len(own)
            ]
        return pd.DataFrame(rows, columns=["rung", "runs", "score", "share", "share_low", "share_high"])

    def settled(self) -> pd.DataFrame:
        """Two rows, the settled policies and random play: experiments, and the :attr:`statistic` of their scores.

        Random play is that of all experiments, whether they have settled or not. `better` is P(a settled policy scores
        higher than random play in its own experiment).
        """
        scores = {"settled": self.experiments.score.dropna(), "random": self.experiments.random.dropna()}
        paired = self.experiments.dropna(subset=["score", "random"])
        wins = (paired.score > paired.random) + 0.5 * (paired.score == paired.random)
        better = {"settled": float(wins.mean()) if len(paired) else np.nan, "random": np.nan}
        return pd.DataFrame(
            [
                {"policy": policy, "experiments": len(found)}
                | _columns("score", interval(found.to_numpy(), self.statistic))
                | {"better": better[policy]}
                for policy, found in scores.items()
            ]
        ).set_index("policy")


def _scored(attempts: pd.DataFrame) -> pd.DataFrame:
    """Those whose score counts for their rung."""
    return attempts[attempts.to_the_end & attempts.score.notna()]


def _seeds(attempts: pd.DataFrame) -> pd.Series:
    """The seed of each; where it is not known, each experiment is one."""
    return attempts.seed.astype(object).where(attempts.seed.notna(), attempts.parent)


def _columns(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
