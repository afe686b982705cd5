"""Do the rules on the score notice a standstill? They are tried on runs whose expected score is known.

    python -m benchmarks.plateau [--runs 1000] [--calibration]

NetHack's score varies so much that no recorded run is known to be flat, so runs are simulated: the brief's 5000
episodes with its three phases, and an expected score of a known shape (`SHAPES`). The noise is real. It comes from the
recorded healthy V3 runs of 1000 episodes and more: their score over a line of their own, in their later halves, with
the number of games that ended in each update. Each simulated run takes it from one recording, drawn with replacement in
blocks of 20 updates, so what neighbouring updates have in common is kept. Runs with at most 300 steps a game vary more,
and are a case of their own.

The same runs are judged twice: as one attempt, and as a lineage of attempts, each of which continues from a checkpoint
of the one before (`CUTS`). A run is ended if a failing rule fires in any of its attempts. `--calibration` draws other
runs, for choosing a rule's numbers; the report's are for judging it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from benchmarks.detection import recordings
from benchmarks.report import percent, share, write
from pipeline.health.flat import FlatRule
from pipeline.health.history import History
from pipeline.health.phase import Phase
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import RULE_SETS

EPISODES = 5000
UNTIL = {Phase.WARMUP: 1000, Phase.TRANSITION: 3000}
"""The brief's phases, by episodes."""
CUTS = (700, 1400, 2200)
"""Episodes of the checkpoints from which the attempts of a lineage continue."""
STEPS = 2048
UPDATE = 10
"""Episodes that may end in one update: a look that falls due in it is not late."""
BLOCK = 20
"""Updates that are drawn together."""
SHORT_GAMES = "nethack_cap300"


class Shape(NamedTuple):
    """What a run's expected score does."""

    meaning: str
    score: Callable[[np.ndarray], np.ndarray]
    """Expected score in any unit, of (n,) episodes in thousands."""
    flat_from: int | None = None
    """The episode from which it certainly stands still; None: it does not, or only in fine-tune."""


def _rise(per_thousand: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: (1 + per_thousand) ** t


SHAPES: dict[str, Shape] = {
    "flat": Shape("flat from the start", np.ones_like, 0),
    "rise_then_flat": Shape("doubles by episode 1000, then flat", lambda t: 0.5 + 0.5 * np.minimum(t, 1), 1000),
    "rise_long_then_flat": Shape("doubles by episode 1500, then flat", lambda t: 0.5 + np.minimum(t, 1.5) / 3, 1500),
    "falling": Shape("loses 20 % per 1000", _rise(-0.2), 0),
    "gain_5": Shape("gains 5 % per 1000", _rise(0.05)),
    "gain_10": Shape("gains 10 % per 1000", _rise(0.10)),
    "gain_12": Shape("gains 12 % per 1000", _rise(0.12)),
    "gain_15": Shape("gains 15 % per 1000", _rise(0.15)),
    "gain_15_line": Shape("gains 15 % of its mean per 1000, a line", lambda t: 1 + 0.15 * (t - 2.5)),
    "gain_30": Shape("gains 30 % per 1000", _rise(0.30)),
    "converges": Shape("gains 15 % per 1000 to episode 3000, then flat", lambda t: 1.15 ** np.minimum(t, 3)),
    "saturates": Shape("gains 35 % per 1000 at episode 1000, 11 % at 3000", lambda t: 1 - 0.7 * np.exp(-t / 2.5)),
    "steps_up": Shape("flat, 60 % higher from episode 1500 on, then flat", lambda t: np.where(t < 1.5, 1, 1.6), 1500),
    "steps_up_late": Shape("flat, 60 % higher from episode 4000 on", lambda t: np.where(t < 4, 1, 1.6), 0),
}


class Case(NamedTuple):
    """How the runs are judged."""

    shapes: tuple[str, ...]
    cuts: tuple[int, ...] = ()
    """Episodes of the checkpoints from which attempts continue."""
    retried: bool = False
    """Whether they have the same configuration, as after a crash; else each is a rung of its own."""
    short: bool = False
    """Whether games end after 300 steps."""


_MOST = ("flat", "rise_then_flat", "gain_15", "converges")
CASES = {
    "one attempt": Case(tuple(SHAPES)),
    "four attempts, retries": Case(_MOST, CUTS, retried=True),
    "four attempts, rungs": Case(_MOST, CUTS),
    "short games": Case(_MOST, short=True),
}


def on_score(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Those of the rules that look for a plateau of the score."""
    return tuple(rule for rule in rules if isinstance(rule, PlateauRule | FlatRule))


def noise() -> dict[str, list[np.ndarray]]:
    """Recording → score over the fitted line, and number of episodes, (updates, 2) each, of the later half of a run."""
    drawn: dict[str, list[np.ndarray]] = {}
    for recording in recordings():
        if recording.is_healthy and recording.rung == "v3" and recording.history.series("episodes")[1][-1] >= 1000:
            _, values = recording.history.aligned(["score", "episodes"])
            later = len(values["score"]) // 2
            counts = np.diff(values["episodes"], prepend=0.0)[later:]
            score, episodes = values["score"][later:], values["episodes"][later:]
            line = np.polyval(np.polyfit(episodes, score, 1, w=np.sqrt(counts)), episodes)
            drawn.setdefault(recording.fault.name, []).append(np.stack([score / line, counts], axis=1))
    return drawn


def deviation(pool: Sequence[np.ndarray]) -> float:
    """Standard deviation of one game's score over the mean: the root of the mean of the recordings' variances."""
    return float(np.sqrt(np.mean([(each[:, 1] * (each[:, 0] - 1) ** 2).mean() for each in pool])))


def simulate(shape: Shape, pool: Sequence[np.ndarray], random: np.random.Generator) -> dict[str, np.ndarray]:
    """The metrics of one simulated run, (updates,) each.

    Args:
        shape: of its expected score.
        pool: recordings as `noise` returns them; one of them is drawn.
        random: source of the draws.
    """
    source = pool[int(random.integers(len(pool)))]
    blocks = int(np.ceil(EPISODES / source[:, 1].mean() / BLOCK * 1.3))
    begins = random.integers(len(source) - BLOCK + 1, size=blocks)
    drawn = source[(begins[:, None] + np.arange(BLOCK)).ravel()]
    episodes = np.cumsum(drawn[:, 1])
    drawn, episodes = drawn[episodes <= EPISODES], episodes[episodes <= EPISODES]
    phase = np.searchsorted(list(UNTIL.values()), episodes, side="right").astype(float)
    return {"score": drawn[:, 0] * shape.score(episodes / 1000), "episodes": episodes, "phase": phase}


def attempts(run: dict[str, np.ndarray], cuts: Sequence[int], *, retried: bool) -> list[History]:
    """The run as attempts, each of which continues from the episode at which the one before ends.

    `retried`: with the same configuration.
    """
    steps = STEPS * np.arange(1, len(run["episodes"]) + 1)
    bounds = [0, *np.searchsorted(run["episodes"], cuts, side="right"), len(steps)]
    found: list[History] = []
    for first, last in pairwise(bounds):
        series = {
            name: zip(steps[first:last].tolist(), values[first:last].tolist(), strict=True)
            for name, values in run.items()
        }
        found.append(History(series, past=found[-1] if found else None, unchanged=retried))
    return found


def detected(rule: Rule, histories: Sequence[History]) -> float:
    """The episode at which the rule first fires in any of a run's attempts; infinite: it never does."""
    for history in histories:
        if found := rule.firings(history):
            steps, episodes = history.series("episodes")
            return float(episodes[np.searchsorted(steps, found[0].detection_step or 0)])
    return float("inf")


def judge(
    name: str, case: Case, pool: Sequence[np.ndarray], rules: Sequence[Rule], runs: int, stream: int
) -> dict[str, Any]:
    """The row of one shape: shares of the runs with their intervals, of every rule and of the failing ones together."""
    shape = SHAPES[name]
    at = np.full((runs, len(rules)), np.inf)
    for number in range(runs):
        random = np.random.default_rng([stream, list(SHAPES).index(name), number])
        histories = attempts(simulate(shape, pool, random), case.cuts, retried=case.retried)
        at[number] = [detected(rule, histories) for rule in rules]
    failing = [index for index, rule in enumerate(rules) if rule.action == "fail"]
    ended = at[:, failing].min(axis=1)
    row: dict[str, Any] = {"shape": name, "meaning": shape.meaning}
    row |= {rule.name: share(int((at[:, index] < np.inf).sum()), runs) for index, rule in enumerate(rules)}
    row["ended"] = share(int((ended < np.inf).sum()), runs)
    if shape.flat_from is not None:
        for flat in (2000, 2500, 3000):
            row[f"within_{flat}"] = share(int((ended <= shape.flat_from + flat + UPDATE).sum()), runs)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs of each shape")
    parser.add_argument("--calibration", action="store_true", help="other runs than the report's; nothing is written")
    asked = parser.parse_args()
    found, rules = noise(), on_score(RULE_SETS["v3"])
    tables = {}
    for name, case in CASES.items():
        pool = [each for recorded, of in found.items() if (recorded == SHORT_GAMES) == case.short for each in of]
        rows = [judge(shape, case, pool, rules, asked.runs, int(not asked.calibration)) for shape in case.shapes]
        tables[name] = {"deviation": deviation(pool), "updates_of_noise": sum(map(len, pool)), "rows": rows}
        print(f"\n{name}: deviation {deviation(pool):.2f} of the mean, {len(pool)} recordings; {asked.runs} runs each")
        shown = [*(rule.name for rule in rules), "ended", "within_2000", "within_2500", "within_3000"]
        print(f"{'':16}" + "".join(f"{name:20}" for name in shown))
        for row in rows:
            cells = (percent(row[name]) if name in row else "–" for name in shown)
            print(f"{row['shape']:16}" + "".join(f"{cell:20}" for cell in cells), flush=True)
    if not asked.calibration:
        content = {"runs": asked.runs, "episodes": EPISODES, "cuts": CUTS, "cases": tables}
        print(f"written to {write('plateau', content)}")


if __name__ == "__main__":
    main()
