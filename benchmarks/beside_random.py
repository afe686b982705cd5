"""Do the rules on a score beside random play's see a policy that has learnt nothing, and spare one that learns late?

    python -m benchmarks.beside_random [--runs 200] [--calibration]

Runs of 5000 episodes are simulated. Their mean score is a known multiple of random play's (`SHAPES`), and their noise
is that of real games of random play, three games an update. Each run has random baselines of its own, of `BASELINES`
games. The games of random play (`results/random_games.json`) are played where the file is missing: half a minute for
400 of them on one core. The recorded healthy runs are judged too, each beside many baselines of the same step cap.

`--calibration` draws other runs, for choosing a rule's numbers; the report's are for judging it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.detection import recordings
from benchmarks.report import RESULTS, percent, share, write
from pipeline.config import EnvironmentSection
from pipeline.environments.vector import random_episodes
from pipeline.health.beside_random import BesideRandomRule
from pipeline.health.history import History
from pipeline.health.rule_sets import RULE_SETS

GAMES = RESULTS / "random_games.json"
EPISODES, EACH, STEPS = 5000, 3, 2048
"""Episodes of a simulated run, episodes and environment steps of an update."""
BASELINES = (100, 1000)
RECORDED_BASELINES = 40
CAPS = {"nethack": 1000, "nethack_cap300": 300, "score_1000k": 1000, "score_2000k": 1000}
"""Recording → step cap of its games."""
SEEDS = {1000: (11, 12), 300: (11,)}
"""Step cap → seeds of 400 games of random play each."""


def _late(start: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: 1 + np.maximum(t - start, 0)


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half of random play": lambda t: 0.5 + 0 * t,
    "random play": np.ones_like,
    "1.1 × random play": lambda t: 1.1 + 0 * t,
    "1.25 × random play": lambda t: 1.25 + 0 * t,
    "1.5 × random play": lambda t: 1.5 + 0 * t,
    "twice random play": lambda t: 2.0 + 0 * t,
    "random play, gains a tenth of it per 1000": lambda t: 1 + 0.1 * t,
    "random play, gains a quarter of it per 1000": lambda t: 1 + 0.25 * t,
    "random play to episode 1000, then gains as much per 1000": _late(1.0),
    "random play to episode 1500, then gains as much per 1000": _late(1.5),
    "random play to episode 2000, then gains as much per 1000": _late(2.0),
}
"""Expected score in units of random play's, of (n,) episodes in thousands."""


def games() -> dict[int, np.ndarray]:
    """Step cap → scores of games of random play; they are played once."""
    if not GAMES.exists():
        played = {}
        for cap, seeds in SEEDS.items():
            environment = EnvironmentSection(max_episode_steps=cap)
            played[cap] = [each.score for seed in seeds for each in random_episodes(environment, 400, seed)]
        write("random_games", {"scores": played}, GAMES)
    found = json.loads(GAMES.read_text(encoding="utf-8"))["scores"]
    return {int(cap): np.array(scores) for cap, scores in found.items()}


def simulate(expected: Callable[[np.ndarray], np.ndarray], scores: np.ndarray, random: np.random.Generator) -> History:
    """A run whose games vary as those of random play do."""
    updates = np.arange(1, EPISODES // EACH + 1)
    drawn = random.choice(scores, (len(updates), EACH)).mean(axis=1)
    values = {"score": drawn * expected(updates * EACH / 1000), "episodes": updates * EACH}
    return History({name: zip((updates * STEPS).tolist(), of.tolist(), strict=True) for name, of in values.items()})


def beside(history: History, played: np.ndarray) -> History:
    """The scores of a history, with the baseline that these games of random play make: mean and normal interval."""
    mean, error = float(played.mean()), float(played.std(ddof=1)) / len(played) ** 0.5
    names = ("score", "episodes")
    series = {name: zip(*(each.tolist() for each in history.series(name)), strict=True) for name in names}
    means = {"random/score": mean, "random/score_low": mean - 1.96 * error, "random/score_high": mean + 1.96 * error}
    return History({**series, **{name: [(0, value)] for name, value in means.items()}})


def first_firing(rule: BesideRandomRule, history: History) -> float:
    """The episode at which a rule fires first; infinite: never."""
    found = rule.firings(history)
    steps, episodes = history.series("episodes")
    return float(episodes[np.searchsorted(steps, found[0].detection_step or 0)]) if found else np.inf


def judge(shape: str, scores: np.ndarray, rules: Sequence[BesideRandomRule], runs: int, stream: int) -> dict[str, Any]:
    """Baseline's games → rule → the shares of the runs in which it ever fires, and those in which it does by 2010."""
    at = np.full((runs, len(BASELINES), len(rules)), np.inf)
    for number in range(runs):
        random = np.random.default_rng([stream, list(SHAPES).index(shape), number])
        run = simulate(SHAPES[shape], scores, random)
        for index, size in enumerate(BASELINES):
            history = beside(run, random.choice(scores, size))
            at[number, index] = [first_firing(rule, history) for rule in rules]
    return {
        str(size): {
            rule.name: {
                "ever": share(int((at[:, index, column] < np.inf).sum()), runs),
                "by_2000": share(int((at[:, index, column] <= 2010).sum()), runs),
            }
            for column, rule in enumerate(rules)
        }
        for index, size in enumerate(BASELINES)
    }


def recorded(scores: dict[int, np.ndarray], rules: Sequence[BesideRandomRule]) -> list[dict[str, Any]]:
    """The recorded healthy runs of 1000 episodes and more: in how many of many baselines each rule fires."""
    rows = []
    for recording in recordings():
        episodes = recording.history.series("episodes")[1]
        if not recording.is_healthy or recording.fault.name not in CAPS or episodes[-1] < 1000:
            continue
        random = np.random.default_rng(recording.seed)
        pool = scores[CAPS[recording.fault.name]]
        row: dict[str, Any] = {"run": f"{recording.fault.name} seed {recording.seed}", "episodes": float(episodes[-1])}
        for size in BASELINES:
            histories = [beside(recording.history, random.choice(pool, size)) for _ in range(RECORDED_BASELINES)]
            row[str(size)] = {rule.name: sum(bool(rule.firings(each)) for each in histories) for rule in rules}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="simulated runs of each shape")
    parser.add_argument("--calibration", action="store_true", help="other runs than the report's; nothing is written")
    asked = parser.parse_args()
    rules = [rule for rule in RULE_SETS["v3"] if isinstance(rule, BesideRandomRule)]
    scores = games()
    found = {}
    for shape in SHAPES:
        found[shape] = judge(shape, scores[1000], rules, asked.runs, int(not asked.calibration))
        for size, row in found[shape].items():
            cells = (f"{name} {percent(of['ever'])}, by 2000 {percent(of['by_2000'])}" for name, of in row.items())
            print(f"{shape:58} {size:>5}  " + "   ".join(cells), flush=True)
    rows = recorded(scores, rules)
    for row in rows:
        print(row)
    if not asked.calibration:
        about = {str(cap): [len(of), float(of.mean()), float(of.std() / of.mean())] for cap, of in scores.items()}
        content = {"runs": asked.runs, "episodes": EPISODES, "baselines": BASELINES, "random_play": about}
        content |= {"recorded_baselines": RECORDED_BASELINES, "shapes": found, "recorded": rows}
        print(f"written to {write('beside_random', content)}")


if __name__ == "__main__":
    main()
