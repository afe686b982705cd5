"""What serves best on the rungs that do not train the graph encoder, where there is no healthy one to go back to?

    python -m benchmarks.untrained_encoder [--seeds 3] [--first-seed 51] [--steps 240000] [--report]

`freeze_gat` and `v2_router_gat` leave the encoder alone. Without a healthy checkpoint its weights are random. Compared
on NetHackScout, with equal environment steps in all:

| way | |
|---|---|
| attached | V3: the encoder is trained with the rest to the end |
| freeze_gat, random | frozen with its random weights from the beginning |
| freeze_gat, warmed | V3 through the softmax phase, then frozen |
| v2_router_gat, random | V2 on the features of random weights |
| v2_router_gat, warmed | V3 through the softmax phase, then V2 on the encoder that this left |

Each seed writes `results/untrained_encoder/seedN-STEPS.json`; a way that is in the file is not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.recovery import Laboratory
from benchmarks.report import RESULTS, circumstances, mean, write
from benchmarks.retained import CONTROL, SCOUT, experiment, last_games
from benchmarks.suite import BASE, load_suite
from fallbacks.freeze_gat import FREEZE_GAT
from fallbacks.ladder import Plan
from fallbacks.rung import Rung
from fallbacks.v2_router_gat import V2_ROUTER_GAT
from fallbacks.v3 import V3
from pipeline.attempt.checkpoint_files import newest
from pipeline.attempt.file import WarmStart
from pipeline.config import ExperimentConfig

FOLDER = RESULTS / "untrained_encoder"
WAYS: dict[str, tuple[Rung, bool]] = {
    "attached": (V3, False),
    "freeze_gat, random": (FREEZE_GAT, False),
    "freeze_gat, warmed": (FREEZE_GAT, True),
    "v2_router_gat, random": (V2_ROUTER_GAT, False),
    "v2_router_gat, warmed": (V2_ROUTER_GAT, True),
}
"""The rung, and whether V3 is trained through the softmax phase before."""
WARM_SHARE = 0.2
"""Share of the steps that the softmax phase of this schedule takes, at 800 steps a game."""


def play(way: str, base: ExperimentConfig, steps: int, laboratory: Laboratory) -> dict[str, Any]:
    """Trains one way; returns its score over the last games, and their number."""
    rung, warmed = WAYS[way]
    config, start, left = rung.transform(base), None, steps
    if warmed:
        first, cost = laboratory.attempt(Plan(V3, base, None, way), 0, (), int(WARM_SHARE * steps))
        point = newest(first.checkpoints)
        start = WarmStart(checkpoint=point.path, run_id=first.run_id, episode=point.episode, carry=rung.carry)
        left = steps - cost
    attempt, _ = laboratory.attempt(Plan(rung, config, start, way), 1, (), left)
    score, games = last_games(laboratory.histories[attempt.run_id]) or (float("nan"), 0)
    return {"score": round(score, 2), "games": games}


def examine(seed: int, steps: int) -> None:
    """Runs the ways that have no result yet for a seed."""
    path = FOLDER / f"seed{seed}-{steps}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"seed": seed, **circumstances()}
    results = found.setdefault("ways", {})
    base = experiment(replace(load_suite()[BASE], name=CONTROL, values={}), steps, seed)
    base = base.with_values({"health.rules": "none", "ladder.rungs": ["v3"], "ladder.remedies": 0})
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder))
        for way in WAYS:
            if way not in results:
                results[way] = play(way, base, steps, laboratory)
                path.write_text(json.dumps(found) + "\n", encoding="utf-8")
                print(f"seed {seed}: {way} {results[way]['score']:.0f}", flush=True)


def report(steps: int) -> None:
    """Prints each way's mean, and what warming up gains on each rung; writes `results/untrained_encoder.json`."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob(f"seed*-{steps}.json"))]
    files = [each for each in files if each["ways"].keys() >= WAYS.keys()]
    scores = {way: [each["ways"][way]["score"] for each in files] for way in WAYS}
    rows = {way: mean(values) for way, values in scores.items()}
    for way, (middle, low, high) in rows.items():
        print(f"{way:24} {len(files)} seeds  {middle:.0f} [{low:.0f}, {high:.0f}]")
    gains = {}
    for rung in (FREEZE_GAT.name, V2_ROUTER_GAT.name):
        pairs = zip(scores[f"{rung}, warmed"], scores[f"{rung}, random"], strict=True)
        gains[rung] = mean([warmed - random for warmed, random in pairs])
        print("{}: warmed is better than random by {:.0f} [{:.0f}, {:.0f}]".format(rung, *gains[rung]))
    write("untrained_encoder", {"steps": steps, "ways": rows, "warmed_over_random": gains, "runs": files})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=51)
    parser.add_argument("--steps", type=int, default=SCOUT.steps)
    parser.add_argument("--report", action="store_true", help="only print what is there")
    given = parser.parse_args()
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    if not given.report:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            examine(seed, given.steps)
    report(given.steps)


if __name__ == "__main__":
    main()
