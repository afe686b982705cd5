"""A comparison as pandas frames, for a notebook and for the page. Times are UTC; scores are the game's own.

`experiments`, one row for each parent run, oldest first:

| column | type | meaning |
|---|---|---|
| parent | str | run id |
| experiment, seed | str, Int64 | name of the MLflow experiment; `training.seed` |
| outcome | str | healthy, exhausted, interrupted, error, or running |
| settled_rung, settled_run | str or None | where the ladder ended healthy, and the run id of that attempt |
| model | str or None | URI of its policy for `mlflow.pytorch.load_model` |
| started | datetime | |
| minutes | float | from the parent's start to its end, or until now |
| attempts | int | how many |
| score, score_low, score_high | float | of the settled attempt, as below; NaN where there is none |
| random, random_low, random_high | float | a uniformly random policy under the same step cap, 95 % interval |

`attempts`, one row for each attempt, in the order of `experiments` and of their numbers:

| column | type | meaning |
|---|---|---|
| run_id, parent, experiment, seed | | as above |
| attempt, rung | int, str | number from 0; name of the rung |
| verdict | str | healthy, expert_collapse …, or running |
| evidence | str | the verdict's evidence in a line; empty if there is none |
| source, source_episode | str or None, Int64 | whose checkpoint it started from, and where; None: from scratch |
| started | datetime | |
| begins, minutes | float | minutes from the parent's start; duration |
| episodes, steps | int | of the training's schedule, so with what was carried over |
| trained_steps | int | environment steps of this attempt alone |
| score, score_low, score_high | float | mean of the last `training.score_window` episodes, 95 % interval |
| best_score | float | highest windowed score |
| steps_per_second, memory_mb | float | median, maximum |
| changed | dict | dotted key → [value of the experiment, value of this attempt] |

`metrics`, one row for each logged value: run_id, metric (str), step (int, environment steps), minutes (float, from the
parent's start), value (float). Of a metric without steps (all 0) the step is its running number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.compare.statistics import Interval, interval, probability_of_improvement
from pipeline.health.verdict import Verdict


@dataclass(frozen=True)
class Comparison:
    """Experiments and their attempts, as frames."""

    experiments: pd.DataFrame
    attempts: pd.DataFrame
    metrics: pd.DataFrame
    verdicts: dict[str, Verdict]
    """By run id of the attempt, with the whole evidence."""

    def history(self, run_id: str, metric: str) -> pd.DataFrame:
        """step, minutes and value of one metric of one attempt, by step; the newest value of a step."""
        rows = self.metrics[(self.metrics.run_id == run_id) & (self.metrics.metric == metric)]
        return rows.drop_duplicates("step", keep="last").sort_values("step")[["step", "minutes", "value"]]

    def rungs(self) -> pd.DataFrame:
        """By rung, in the ladder's order: attempts, healthy ones, minutes, and the IQM of their scores with interval.

        The unit is the attempt. Attempts that failed count with the score they had reached.
        """
        rows = []
        for rung, group in self.attempts.groupby("rung", sort=False):
            score = interval(group.score.dropna().to_numpy())
            rows.append(
                {
                    "rung": rung,
                    "attempts": len(group),
                    "healthy": int((group.verdict == "healthy").sum()),
                    "minutes": float(group.minutes.sum()),
                    **_columns("score", score),
                }
            )
        return pd.DataFrame(rows).set_index("rung") if rows else pd.DataFrame()

    def improvement(self) -> pd.DataFrame:
        """For each two rungs x ≠ y: P(an attempt of x scores higher than one of y), with its interval."""
        scores = {rung: group.score.dropna().to_numpy() for rung, group in self.attempts.groupby("rung", sort=False)}
        rows = [
            {"x": x, "y": y, "attempts_x": len(scores[x]), "attempts_y": len(scores[y])}
            | _columns("probability", probability_of_improvement(scores[x], scores[y]))
            for x in scores
            for y in scores
            if x != y and len(scores[x]) and len(scores[y])
        ]
        columns = ["x", "y", "attempts_x", "attempts_y", "probability", "probability_low", "probability_high"]
        return pd.DataFrame(rows, columns=columns)

    def settled(self) -> pd.DataFrame:
        """Over experiments: the score of the settled policies and that of random play, IQM with interval, and how many.

        Also `better`: P(a settled policy scores higher than the random one of its own experiment).
        """
        done = self.experiments.dropna(subset=["score"])
        paired = done.dropna(subset=["random"])
        wins = (paired.score > paired.random) + 0.5 * (paired.score == paired.random)
        return pd.DataFrame(
            [
                {"policy": "settled", "experiments": len(done)}
                | _columns("score", interval(done.score.to_numpy()))
                | {"better": float(wins.mean()) if len(paired) else np.nan},
                {"policy": "random", "experiments": len(paired)}
                | _columns("score", interval(paired.random.to_numpy()))
                | {"better": np.nan},
            ]
        ).set_index("policy")


def _columns(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
