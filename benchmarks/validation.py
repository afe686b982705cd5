"""Which interval may say of a few fresh seeds that a gain is real? Simulated: how often it is wrong, and what it finds.

    python -m benchmarks.validation [--budget 4000]

Two samples of n runs each, of laws whose probability of improvement is known. Each method gives a 95 % interval of that
probability, or of a difference; it says "gain" if the interval lies above no difference. *False gains* are counted
where there is none (2.5 % are due), *found* where the best is better by one or two standard deviations, and *covered*
says how often the interval of the probability has the true one in it (95 % are due).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.report import write
from pipeline.tuning.validation import compare

SEEDS = (4, 5, 6, 8, 10)
_RESAMPLES = 1000
Sampler = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def _normal(shift: float, spread: float = 1.0) -> Sampler:
    return lambda rng, n: (rng.normal(shift, spread, n), rng.normal(0, 1, n))


LAWS: dict[str, tuple[Sampler, float]] = {
    "no gain": (_normal(0), 0.5),
    "no gain, one spreads three times as much": (_normal(0, 3), 0.5),
    "no gain, log-normal": (lambda rng, n: (np.exp(rng.normal(size=n)), np.exp(rng.normal(size=n))), 0.5),
    "no gain, heavy tails (t, 2 degrees)": (lambda rng, n: (rng.standard_t(2, n), rng.standard_t(2, n)), 0.5),
    "a gain of one deviation": (_normal(1), float(stats.norm.cdf(1 / np.sqrt(2)))),
    "a gain of two deviations": (_normal(2), float(stats.norm.cdf(2 / np.sqrt(2)))),
}
"""Name → the samples, and the true probability of improvement."""


def ranks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """(low, high, no difference) of the exact rank interval, which `ladder tune --validate` gives."""
    gain = compare(x.tolist(), y.tolist())
    return gain.low, gain.high, 0.5


def bootstrap(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """The same of a percentile bootstrap over the runs of both."""
    wins = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    rows, columns = (rng.integers(len(each), size=(_RESAMPLES, len(each))) for each in (x, y))
    low, high = np.quantile(wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)), [0.025, 0.975])
    return float(low), float(high), 0.5


def paired_t(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """The same of Student's interval of the mean difference, run by run."""
    found = stats.ttest_rel(x, y).confidence_interval()
    return float(found.low), float(found.high), 0.0


def signs(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """The same of the exact (Clopper-Pearson) interval of the pairs that the first wins."""
    found = stats.binomtest(int((x > y).sum()), len(x)).proportion_ci()
    return float(found.low), float(found.high), 0.5


METHODS = {"ranks": ranks, "bootstrap": bootstrap, "paired_t": paired_t, "signs": signs}


def simulate(law: str, seeds: int, times: int) -> dict[str, dict[str, float]]:
    """Method → the shares of simulated validations in which it says "gain", and has the true probability in it."""
    draw, truth = LAWS[law]
    rng = np.random.default_rng(seeds)
    counted = {name: np.zeros(2) for name in METHODS}
    for _ in range(times):
        x, y = draw(rng, seeds)
        for name, method in METHODS.items():
            low, high, nothing = method(x, y, rng)
            counted[name] += (low > nothing, low - 1e-9 <= truth <= high + 1e-9)
    return {
        name: {"gain": both[0] / times, **({} if name == "paired_t" else {"covered": both[1] / times})}
        for name, both in counted.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=4000, help="simulated validations of each kind")
    parser.add_argument("--out", type=Path, help="results file, instead of benchmarks/results/validation.json")
    asked = parser.parse_args()
    results: dict[str, Any] = {law: {} for law in LAWS}
    for law in LAWS:
        print(law)
        for seeds in SEEDS:
            found = results[law][str(seeds)] = simulate(law, seeds, asked.budget)
            cells = [
                f"{name} {each['gain']:5.1%}" + (f" ({each['covered']:4.0%} covered)" if "covered" in each else "")
                for name, each in found.items()
            ]
            print(f"  {seeds:2} seeds: says gain: {', '.join(cells)}")
    print(f"written to {write('validation', {'times': asked.budget, 'laws': results}, asked.out)}")


if __name__ == "__main__":
    main()
