"""Would anybody notice that the score stands still? The rules on the score, on runs whose trend is known.

    python -m benchmarks.plateau [--runs 200]

NetHack's score varies so much that no recorded run is known to be flat. So runs are made: the expected score is a
straight line over the brief's 3000 episodes before fine-tune, and the noise is real, the residuals of recorded healthy
V3 runs about lines of their own, in units of the line, drawn with replacement (update by update, with the number of
its episodes). Trends: changes per 1000 episodes in units of the mean; below a tenth is what the rules call a plateau.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.detection import recordings
from benchmarks.report import percent, share, write
from pipeline.health.history import History
from pipeline.health.phase import Phase
from pipeline.health.rule_sets import RULE_SETS

TRENDS = (-0.2, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
EPISODES = 3000
STEPS = 2048
RULES = [
    rule.model_copy(update={"phases": None})
    for rule in RULE_SETS["v3"]
    if rule.least_episodes and Phase.FINETUNE not in (rule.phases or ())
]


def noise() -> np.ndarray:
    """(updates, 2): score over what a line says, and the number of episodes, of the later halves of long runs."""
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
    """One run up to fine-tune."""
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
    parser.add_argument("--runs", type=int, default=200)
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
