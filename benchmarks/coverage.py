"""Does a 95 % interval of a few runs have the truth in it in 95 % of cases? Simulated, as `ladder compare` states them.

    python -m benchmarks.coverage [--budget 4000]

Samples of n runs, of laws whose mean and interquartile mean are known. Each method gives a 95 % interval; *covered* is
the share of samples in whose interval the truth lies, and the width is the median, in standard deviations of the law.
`the product` is what :func:`pipeline.compare.statistics.interval` does with so many runs.

Then differences of two samples, and one attempt's score: the mean over its last 100 games. Its updates come in blocks
of 20 from the recorded runs of NetHack, so they are as skewed, and as dependent on one another, as those are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.plateau import BLOCK, SHORT_GAMES, noise
from benchmarks.report import write
from pipeline.compare.statistics import FEWEST, MANY, difference, interquartile_mean, interval, recent, weighted_mean

RUNS = (2, 3, 4, 5, 8, 10, 20)
_RESAMPLES = 1000
_WINDOW = 100
"""Games of `training.score_window`."""
Ends = tuple[np.ndarray, np.ndarray]
"""Lower and upper ends of the intervals, (samples,) each."""
LAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "log-normal (σ = ½)": lambda rng, shape: rng.lognormal(0, 0.5, size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "Student's t, 3 degrees": lambda rng, shape: rng.standard_t(3, size=shape),
    "normal, a tenth fails": lambda rng, shape: rng.normal(size=shape) - 5 * (rng.random(shape) < 0.1),
}


def _mean(runs: np.ndarray) -> np.ndarray:
    return np.asarray(runs.mean(-1))


def percentile(statistic: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.random.Generator], Ends]:
    """The percentile bootstrap of a statistic."""

    def found(runs: np.ndarray, rng: np.random.Generator) -> Ends:
        drawn = statistic(runs[:, rng.integers(runs.shape[1], size=(_RESAMPLES, runs.shape[1]))])
        low, high = np.quantile(drawn, (0.025, 0.975), axis=1)
        return low, high

    return found


def bca(runs: np.ndarray, rng: np.random.Generator) -> Ends:
    """The bias-corrected and accelerated bootstrap of the mean (Efron 1987)."""
    mean = runs.mean(1, keepdims=True)
    drawn = np.sort(_mean(runs[:, rng.integers(runs.shape[1], size=(_RESAMPLES, runs.shape[1]))]), axis=1)
    share = ((drawn < mean - 1e-12).mean(1) + (drawn <= mean + 1e-12).mean(1)) / 2
    below = np.clip(share, 1 / _RESAMPLES, 1 - 1 / _RESAMPLES)
    bias, spread = stats.norm.ppf(below), runs - mean
    acceleration = (spread**3).sum(1) / (6 * ((spread**2).sum(1)) ** 1.5)

    def end(quantile: float) -> np.ndarray:
        shift = bias + stats.norm.ppf(quantile)
        place = stats.norm.cdf(bias + shift / (1 - acceleration * shift))
        return np.take_along_axis(drawn, (place * (_RESAMPLES - 1)).astype(int)[:, None], 1)[:, 0]

    return end(0.025), end(0.975)


def studentised(runs: np.ndarray, rng: np.random.Generator) -> Ends:
    """The studentised bootstrap of the mean (Efron 1982): the distribution of t is resampled."""
    count, mean, error = runs.shape[1], runs.mean(1), runs.std(1, ddof=1) / np.sqrt(runs.shape[1])
    drawn = runs[:, rng.integers(count, size=(_RESAMPLES, count))]
    apart, errors = drawn.mean(-1) - mean[:, None], drawn.std(-1, ddof=1) / np.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.sort(np.where(errors > 0, apart / errors, np.sign(apart) * np.inf), axis=1)
    low, high = t[:, int(0.025 * _RESAMPLES)], t[:, int(0.975 * _RESAMPLES)]
    return mean - high * error, mean - low * error


def students(runs: np.ndarray, rng: np.random.Generator) -> Ends:
    """Student's t of the mean, also of two runs."""
    half = stats.t.ppf(0.975, runs.shape[1] - 1) * runs.std(1, ddof=1) / np.sqrt(runs.shape[1])
    return runs.mean(1) - half, runs.mean(1) + half


def trimmed(runs: np.ndarray, rng: np.random.Generator) -> Ends:
    """Yuen's t of the interquartile mean (of two and three runs: Student's of the mean)."""
    ordered, count = np.sort(runs, axis=1), runs.shape[1]
    cut = count // 4
    left = count - 2 * cut
    squares = (count - 1) * np.clip(runs, ordered[:, [cut]], ordered[:, [count - cut - 1]]).var(1, ddof=1)
    half = stats.t.ppf(0.975, left - 1) * np.sqrt(squares / (left * (left - 1)))
    return interquartile_mean(runs) - half, interquartile_mean(runs) + half


def of_the_product(runs: np.ndarray, rng: np.random.Generator) -> Ends:
    """What the page says."""
    found = np.array([interval(each) for each in runs])
    return found[:, 1], found[:, 2]


METHODS: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], Ends], str]] = {
    "percentile bootstrap, IQM": (percentile(interquartile_mean), "IQM"),
    "percentile bootstrap, mean": (percentile(_mean), "mean"),
    "BCa bootstrap, mean": (bca, "mean"),
    "studentised bootstrap, mean": (studentised, "mean"),
    "Student's t, mean": (students, "mean"),
    "Yuen's t, IQM": (trimmed, "IQM"),
    "the product": (of_the_product, ""),
}
"""Name → the method, and of which statistic it is."""


def of_runs(law: str, count: int, times: int, truth: dict[str, float], unit: float) -> dict[str, dict[str, Any]]:
    """Method → share covered and median width (None: infinite), over samples of so many runs."""
    rng, found = np.random.default_rng(count), {}
    for name, (method, statistic) in METHODS.items():
        if name == "the product" and count < FEWEST:
            continue
        parts = [method(each, rng) for each in np.array_split(LAWS[law](rng, (times, count)), max(1, times // 50))]
        low, high = (np.concatenate(ends) for ends in zip(*parts, strict=True))
        known = truth[statistic or ("IQM" if count >= MANY else "mean")]
        width = float(np.median(high - low)) / unit
        covered = float(((low <= known) & (known <= high)).mean())
        found[name] = {"covered": round(covered, 4), "width": round(width, 2) if np.isfinite(width) else None}
    return found


def of_differences(law: str, counts: tuple[int, int], times: int, mean: float) -> dict[str, float]:
    """Method → how often it has the difference in it of two samples, one of which spreads three times as much."""
    rng, hits = np.random.default_rng(counts), np.zeros(2)
    for _ in range(times):
        a, b = (LAWS[law](rng, (count,)) for count in counts)
        b, truth = 3 * b, 2 * mean
        found = difference(a, b)
        drawn = [_mean(each[rng.integers(len(each), size=(_RESAMPLES, len(each)))]) for each in (a, b)]
        low, high = np.quantile(drawn[1] - drawn[0], (0.025, 0.975))
        hits += (low <= truth <= high, found.low <= truth <= found.high)
    return dict(zip(("percentile bootstrap", "Welch's t (the product)"), (hits / times).tolist(), strict=True))


def of_games(sources: list[np.ndarray], updates: int | None, times: int) -> dict[str, float]:
    """Method → how often it has a recorded run's mean in it, of updates from that run.

    `updates`: so many; None: those of the last 100 games.
    """
    rng, hits, counts = np.random.default_rng(1), np.zeros(2), []
    for _ in range(times):
        source = sources[int(rng.integers(len(sources)))]
        truth = float(np.average(source[:, 0], weights=source[:, 1]))
        begins = rng.integers(len(source) - BLOCK + 1, size=8)
        drawn = source[(begins[:, None] + np.arange(BLOCK)).ravel()][: updates or None]
        scores, weights = recent(drawn[:, 0], np.cumsum(drawn[:, 1]), _WINDOW if updates is None else 10**6)
        found = weighted_mean(scores, weights)
        index = rng.integers(len(scores), size=(_RESAMPLES, len(scores)))
        low, high = np.quantile((scores * weights)[index].sum(1) / weights[index].sum(1), (0.025, 0.975))
        hits += (low <= truth <= high, found.low <= truth <= found.high)
        counts.append(len(scores))
    shares = dict(zip(("percentile bootstrap", "Student's t (the product)"), (hits / times).tolist(), strict=True))
    return {"updates": float(np.mean(counts)), **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=4000, help="simulated samples of each kind")
    parser.add_argument("--out", type=Path, help="results file, instead of benchmarks/results/coverage.json")
    asked = parser.parse_args()
    results: dict[str, Any] = {"times": asked.budget, "runs": {}, "differences": {}, "games": {}}
    for law, draw in LAWS.items():
        many = draw(np.random.default_rng(0), (2_000_000,))
        truth = {"mean": float(many.mean()), "IQM": float(stats.trim_mean(many, 0.25))}
        print(f"{law}: covered in % (width in deviations)\n  {'':28} " + " ".join(f"{each:>14}" for each in RUNS))
        every = results["runs"][law] = {
            str(count): of_runs(law, count, asked.budget, truth, float(many.std())) for count in RUNS
        }
        for name in METHODS:
            found = [every[str(count)].get(name) for count in RUNS]
            cells = [
                f"{100 * each['covered']:5.1f} ({each['width'] or np.inf:5.2f})" if each else "–" for each in found
            ]
            print(f"  {name:28} " + " ".join(f"{cell:>14}" for cell in cells), flush=True)
        results["differences"][law] = {
            f"{n} and {m}": of_differences(law, (n, m), asked.budget // 2, truth["mean"])
            for n, m in ((3, 3), (5, 5), (3, 10))
        }
        print(f"  difference, B spreads three times as much: {results['differences'][law]}", flush=True)
    pool = noise()
    usual, short = (
        [run for name, runs in pool.items() if (name == SHORT_GAMES) is is_short for run in runs]
        for is_short in (False, True)
    )
    for name, sources, updates in (
        ("the last 100 games", usual, None),
        ("the last 100 games, of at most 300 steps", short, None),
        ("10 updates", usual, 10),
        ("5 updates", usual, 5),
        ("3 updates", usual, 3),
    ):
        results["games"][name] = of_games(sources, updates, asked.budget)
        print(f"one attempt's score, {name}: {results['games'][name]}", flush=True)
    print(f"written to {write('coverage', results, asked.out)}")


if __name__ == "__main__":
    main()
