"""Do the rules on the score notice a plateau? They are tried on runs whose trend is known.

    python -m benchmarks.plateau [--runs 200]

NetHack's score varies so much that no recorded run is known to be flat, so runs are simulated. The expected score is a
straight line over the brief's 3000 episodes before fine-tune. The noise is real: it is drawn with replacement, update
by update, from the residuals of recorded healthy V3 runs about lines of their own, in units of the line. A trend is the
change per 1000 episodes in units of the mean. The rules call a trend below a tenth a plateau.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.detection import recordings
from benchmarks.report import percent, share, write
from pipeline.health.history import History
from pipeline.health.phase import Phase
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule_sets import RULE_SETS

TRENDS = (-0.2, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
EPISODES = 3000
STEPS = 2048
RULES = [
    rule.model_copy(update={"phases": None})
    for rule in RULE_SETS["v3"]
    if isinstance(rule, PlateauRule) and Phase.FINETUNE not in (rule.phases or ())
]


def noise() -> np.ndarray:
    """Score over the fitted line, and number of episodes, (updates, 2), from the later halves of long runs."""
    drawn = []
    for recording in recordings():
        if recording.is_healthy and recording.rung == "v3" and recording.history.series("episodes")[1][-1] >= 1000:
            _, values = recording.history.aligned(["score", "episodes"])
            later = len(values["score"]) // 2
            counts = np.diff(values["episodes"], prepend=0.0)[later:]
            score, episodes = values["score"][later:], values["episodes"][later:]
            line = np.polyval(np.polyfit(episodes, score, 1, w=np.sqrt(counts)), episodes)
            drawn.append(np.stack([score / line, counts], axis=1))
    return np.concatenate(drawn)


def simulate(trend: float, pool: np.ndarray, random: np.random.Generator) -> History:
    """The history of one simulated run up to fine-tune.

    Args:
        trend: change of the expected score per 1000 episodes, in units of the mean.
        pool: what `noise` returns.
        random: source of the draws.
    """
    drawn = pool[random.integers(len(pool), size=EPISODES)]
    episodes = np.cumsum(drawn[:, 1])
    drawn, episodes = drawn[episodes <= EPISODES], episodes[episodes <= EPISODES]
    score = drawn[:, 0] * (1 + trend * (episodes - EPISODES / 2) / 1000)
    steps = STEPS * np.arange(1, len(score) + 1)
    return History(
        {name: list(zip(steps.tolist(), values.tolist(), strict=True)) for name, values in
         (("score", score), ("episodes", episodes))}
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="simulated runs of each trend")
    asked = parser.parse_args()
    pool = noise()
    deviation = float(np.sqrt((pool[:, 1] * (pool[:, 0] - 1) ** 2).mean()))  # of one game
    names = [rule.name for rule in RULES]
    print(f"{len(pool)} updates of recorded noise, deviation {deviation:.2f} of the mean; {asked.runs} runs each")
    print(f"{'per 1000 episodes':18}" + "".join(f"{name:20}" for name in (*names, "either")))
    rows = []
    for trend in TRENDS:
        random = np.random.default_rng(0)
        runs = [simulate(trend, pool, random) for _ in range(asked.runs)]
        fired = np.array([[bool(rule.firings(run)) for rule in RULES] for run in runs])
        hits = {name: int(fired[:, index].sum()) for index, name in enumerate(names)}
        hits["either"] = int(fired.any(axis=1).sum())
        rows.append({"trend": trend, **{name: share(count, asked.runs) for name, count in hits.items()}})
        print(f"{trend:+17.0%} " + "".join(f"{percent(rows[-1][name]):20}" for name in hits))
    content = {"runs": asked.runs, "updates_of_noise": len(pool), "deviation": deviation, "trends": rows}
    print(f"written to {write('plateau', content)}")


if __name__ == "__main__":
    main()
