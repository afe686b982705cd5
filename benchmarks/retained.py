"""What a strategy retains of a score that a fault would have cost: at equal environment steps, over all its attempts.

    retained = (settled − random) / (control − random)

`settled` is the policy of a strategy's last attempt, `control` the same experiment and seed without the fault and
without rules, `random` a random policy in the same game. Each figure is the mean return of the last games. 1: nothing
was lost. 0: no better than random play.

A strategy has as many steps for all its attempts together as the control has for its one. So an attempt that fails late
is dear, and one that goes on from a checkpoint costs only what it adds. An attempt that was cut off because all steps
were spent counts as it is. An experiment whose last attempt failed within 20 games has no policy, and retains nothing.

The game is NetHackScout, on which learning shows within 300,000 steps (docs/learning.md), or NetHackScore, which needs
some more; both with the settings of `experiments/score.yaml`. `benchmarks.recovery --base scout` (or `score`) runs it.
Each fault and seed writes `results/recovery/GAME-STEPS/FAULT-seedN.json`; beside these lie `control-seedN.json` and
`random.json`.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recovery import Laboratory, applies, configuration, go_down, has_struck
from benchmarks.report import RESULTS, circumstances, percent, share, write
from benchmarks.suite import BASE, Fault, load_suite
from pipeline.attempt.record import label_of
from pipeline.compare.statistics import Interval, weighted_mean
from pipeline.config import ExperimentConfig
from pipeline.environments.vector import random_episodes
from pipeline.health.history import History
from pipeline.training.measure import episode_metrics

EXPERIMENT = Path(__file__).parent.parent / "experiments" / "score.yaml"
STRATEGIES = ("remedies", "remedies_alone", "ladder", "restart")
"""Those that are run by default."""
LEAST_GAMES = 20
"""Without so many games there is no policy to judge: it counts as random play."""
RANDOM_GAMES = 320
CONTROL = "control"
_ONLY_PRINTED = {"only_printed": True}
"""Marks a result of which nothing is left but its printed line: the rounded score, and what was kept."""


@dataclass(frozen=True)
class Game:
    """What is played, and how a policy is judged there.

    name: of `--base`, and of the folder of results.
    environment: its id.
    steps: environment steps of all attempts together; so many that the control is clearly above random play.
    score: the metric that is retained; the mean of the episodes that an update ended.
    last: number of last games over which a policy is judged.
    results: the file of the report, without its ending.
    """

    name: str
    environment: str
    steps: int
    score: str
    last: int
    results: str


SCOUT = Game("scout", "NetHackScout-v0", 240_000, "episode/task_return", 100, "retained")
SCORE = Game("score", "NetHackScore-v0", 600_000, "score", 200, "retained_score")
GAMES = {game.name: game for game in (SCOUT, SCORE)}


def folder(game: Game, steps: int) -> Path:
    """Where the results of this length lie."""
    return RESULTS / "recovery" / f"{game.name}-{steps}"


def experiment(fault: Fault, steps: int, seed: int, game: Game = SCOUT) -> ExperimentConfig:
    """The game with a fault. The schedule is scaled with the length, at 800 steps a game."""
    return fault.config(
        f"environment.id={game.environment}",
        f"training.seed={seed}",
        f"training.steps={steps}",
        f"training.episodes={max(2, steps // 500)}",
        f"phases.warmup_until={steps // 4000}",
        f"phases.transition_until={steps * 3 // 4000}",
        "training.checkpoint_every_episodes=16",  # an attempt has some hundred games
        "training.workers=1",
        base=EXPERIMENT,
    )


def last_games(history: History, game: Game = SCOUT) -> tuple[float, int] | None:
    """Mean score of the newest updates that hold at most `game.last` games, at least one; and how many these are.

    None: no game has ended.
    """
    steps, counted = history.series("episodes")
    at, returns = history.series(game.score)
    before = np.concatenate([[0.0], counted[:-1]])
    ended = dict(zip(steps.tolist(), (counted - before).tolist(), strict=True))
    if len(steps) and len(at) and at[0] == steps[0]:
        # An attempt that continues begins with the episodes of its checkpoint; those of its first update are unknown.
        ended[steps[0]] = min(ended[steps[0]], 1.0)
    games = np.array([ended[step] for step in at.tolist()])
    if not games.sum():
        return None
    since = np.cumsum(games[::-1])[::-1]
    last = (since <= max(game.last, since[-1])) & (games > 0)
    return float(np.average(returns[last], weights=games[last])), int(games[last].sum())


def retained(settled: float, control: float, random: float) -> float:
    """The share of the control's gain over random play that a policy has."""
    return (settled - random) / (control - random)


def over_seeds(figures: Sequence[tuple[int, float]]) -> Interval:
    """The mean of (seed, figure), and its 95 % interval over seeds: Student's t of the seeds' means."""
    found: dict[int, list[float]] = defaultdict(list)
    for seed, figure in figures:
        found[seed].append(figure)
    means, counts = [np.mean(each) for each in found.values()], [len(each) for each in found.values()]
    return weighted_mean(np.array(means), np.array(counts))


def with_scores(result: dict[str, Any], histories: dict[str, History], game: Game = SCOUT) -> dict[str, Any]:
    """A strategy's result with the score of each attempt, and of the policy that it came to.

    An attempt that was cut off before its first game ended has the policy of the one before.
    """
    scored = [last_games(histories[run], game) for run in result.pop("runs")]
    reached = next((each for each in reversed(scored) if each is not None), (float("nan"), 0))
    kept = label_of(result["rungs"][-1], result["remedies"][-1])
    scores = [each and round(each[0], 2) for each in scored]
    return result | {"scores": scores, "score": round(reached[0], 2), "games": reached[1], "kept": kept}


def known(strategy: str, results: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a strategy that trains the same attempts as one that is there; None: there is none.

    Remedies that never left v3 are all that `remedies_alone` would do.
    """
    beside = results.get("remedies", _ONLY_PRINTED)
    if strategy != "remedies_alone" or beside.get("only_printed") or set(beside["rungs"]) != {"v3"}:
        return None
    return beside | {"same_as": "remedies"}


def examine(name: str, seed: int, strategies: tuple[str, ...], game: Game = SCOUT, steps: int = SCOUT.steps) -> str:
    """Runs what has no result yet of one fault and seed, or of the control; returns a line for the terminal."""
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    where, began = folder(game, steps), time.monotonic()
    where.mkdir(parents=True, exist_ok=True)
    path, suite = where / f"{name}-seed{seed}.json", load_suite()
    fault = replace(suite[BASE], name=CONTROL, values={}) if name == CONTROL else suite[name]
    about = {"fault": name, "seed": seed, "budget": steps, **circumstances()}
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else about
    results = found.setdefault("strategies", {})
    asked = (CONTROL,) if name == CONTROL else tuple(each for each in strategies if applies(each, fault))
    missing = [each for each in asked if results.get(each, _ONLY_PRINTED).get("only_printed")]
    base = experiment(fault, steps, seed, game)
    if name == CONTROL:
        _random(base, game, where / "random.json")
        base = base.with_values({"health.rules": "none", "ladder.rungs": ["v3"], "ladder.remedies": 0})
    if not missing:
        return ""
    temporary = Path(tempfile.mkdtemp())
    laboratory = Laboratory(temporary)
    try:
        for each in missing:
            config = base if name == CONTROL else configuration(fault, each, seed, base)
            since, cpu = time.monotonic(), time.process_time()
            if (same := known(each, results)) is not None:
                results[each] = same
            else:
                results[each] = with_scores(go_down(laboratory, config, steps), laboratory.histories, game)
                # What it shares with a strategy before it took no time.
                results[each] |= {
                    "seconds": round(time.monotonic() - since),
                    "cpu_seconds": round(time.process_time() - cpu),
                }
            path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    words = ", ".join(f"{each} {results[each]['kept']} {results[each]['score']:.0f}" for each in missing)
    return f"{name} seed {seed}: {words} ({time.monotonic() - began:.0f} s)"


def _random(config: ExperimentConfig, game: Game, path: Path) -> None:
    if path.exists():
        return
    episodes = random_episodes(config.environment, RANDOM_GAMES, seed=1)
    score = episode_metrics(episodes)[game.score]
    content = {**circumstances(), "score": round(score, 2), "games": len(episodes)}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def report(game: Game, steps: int) -> Path:
    """Prints the tables, writes `game.results` and with it the page; returns the path of the page."""
    from benchmarks.watchdog_page import PAGE, render

    where, suite = folder(game, steps), load_suite()
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(where.glob("*-seed*.json"))]
    random = json.loads((where / "random.json").read_text(encoding="utf-8"))["score"]
    control = {each["seed"]: each["strategies"][CONTROL]["score"] for each in files if each["fault"] == CONTROL}
    if dull := [seed for seed, score in control.items() if score <= random]:
        print(f"left out, because the control did no better than random play: seeds {dull}")
    control = {seed: score for seed, score in control.items() if score > random}
    if not control:
        raise SystemExit("no control is better than random play: longer runs are needed (--steps)")
    faulty = [
        each for each in files if each["fault"] in suite and each["seed"] in control and has_struck(each["strategies"])
    ]
    for each in faulty:
        for result in each["strategies"].values():
            score = result["score"] if result.get("games", LEAST_GAMES) >= LEAST_GAMES else random
            result["retained"] = round(retained(score, control[each["seed"]], random), 3)
    rows: dict[str, dict[str, Any]] = {}
    print(f"random {random:.1f}; control " + ", ".join(f"seed {seed} {score:.1f}" for seed, score in control.items()))
    for strategy in dict.fromkeys(name for each in faulty for name in each["strategies"]):
        runs = [(each["seed"], each["strategies"][strategy]) for each in faulty if strategy in each["strategies"]]
        results = [result for _, result in runs]
        whole = [each for each in results if not each.get("only_printed")]
        both = [each for each in faulty if {strategy, "remedies"} <= each["strategies"].keys()]
        ahead = [
            (each["seed"], each["strategies"]["remedies"]["retained"] - each["strategies"][strategy]["retained"])
            for each in both
        ]
        rows[strategy] = {
            "runs": len(results),
            "seeds": len({seed for seed, _ in runs}),
            "retained": over_seeds([(seed, result["retained"]) for seed, result in runs]),
            "healthy": share(sum(each["outcome"] == "healthy" for each in whole), len(whole)),
            "only_printed": len(results) - len(whole),
            "remedies_ahead": over_seeds(ahead) if ahead and strategy != "remedies" else None,
            "kept": dict(Counter(each["kept"] for each in results).most_common()),
        }
        mean, low, high = rows[strategy]["retained"]
        print(
            f"{strategy:14} {len(results):3} runs, retained {mean:.2f} [{low:.2f}, {high:.2f}], "
            f"no failure at the end {percent(rows[strategy]['healthy'])}; keeps {rows[strategy]['kept']}"
        )
    about = {"environment": game.environment, "base": game.name, "budget": steps, "games": game.last}
    content = {**about, "random": random, "control": control, "strategies": rows}
    write(game.results, {**content, "runs": faulty})
    PAGE.write_text(render(), encoding="utf-8")
    return PAGE
