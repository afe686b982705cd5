"""Are the verdicts right? Recorded histories of faulty and of healthy runs are replayed for several sets of rules.

    python -m benchmarks.detection [--seeds reported|calibration|all]

For each recorded fault (`benchmarks.recordings`) it says whether the fault was seen, whether the verdict was right, and
how many updates and seconds after its injection: the event, or the start of the run where its configuration is the
fault. Every recorded run counts, whether the fault has shown in its metrics or not. An alarm before the injection is a
false one. For each healthy run it says whether a failing rule fired.

| rules | what it is |
|---|---|
| v3 | this project's rules, the default |
| seed | the brief's thresholds to the letter |
| threshold | the bounds of `v3` without persistence: a single update beyond a bound is a failure |
| six_sigma | gradient norm or loss above mean + 6 σ of the last 128 updates; OLMo-core skips such steps |

The rules were calibrated on the suite's seeds below 10 (`FIRST_REPORTED` has the exceptions), on three runs of 1 M
steps, and on one run of the brief's whole schedule. All other runs are reported.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recordings import FOLDER
from benchmarks.report import median, percent, share, write
from benchmarks.suite import Fault, load_suite
from pipeline.health.history import History
from pipeline.health.monitor import judge
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import RULE_SETS

HEALTHY = re.compile(r"base|nethack(_cap\d+)?|(score|scout)(_paths)?_\d+k")
"""Names of healthy recordings: the suite's own, and longer runs; see `benchmarks.recordings`."""
FIRST_REPORTED = {
    "score_1000k": 4,
    "nethack": 2,
    "learning_rate": 21,
    "gat_explodes": 13,
    "router_learning_rate": 13,
}
"""Recording → first seed that is reported; smaller seeds were used to calibrate the rules. It is 11 for other faults of
the suite, and 1 for other longer healthy runs."""

Detector = Callable[[History], tuple[str, int] | None]
"""Returns a verdict and the step of its detection, or None."""


@dataclass(frozen=True)
class Recording:
    """The history of one recorded run."""

    fault: Fault
    """The run's fault; that of a healthy run has the verdict `healthy`."""
    rung: str
    seed: int
    history: History

    @property
    def is_healthy(self) -> bool:
        return self.fault.verdict == "healthy"


def recordings() -> list[Recording]:
    """All recordings of `benchmarks.recordings` that belong to the suite or are healthy."""
    suite = load_suite()
    found = []
    for path in sorted(FOLDER.glob("*.csv.gz")):
        match = re.fullmatch(r"(\w+)-(\w+)-seed(\d+)\.csv\.gz", path.name)
        if match and HEALTHY.fullmatch(match[1]):
            fault = Fault(match[1], "healthy", "none", "healthy", {}, {})
        elif match and match[1] in suite:
            fault = suite[match[1]]
        else:
            continue
        found.append(Recording(fault, match[2], int(match[3]), History.read_csv(path)))
    return found


def is_reported(recording: Recording) -> bool:
    """Whether the rules were not calibrated on the recording."""
    longer = recording.is_healthy and recording.fault.name != "base"
    return recording.seed >= FIRST_REPORTED.get(recording.fault.name, 1 if longer else 11)


def by_rules(rules: Iterable[Rule]) -> Detector:
    """A detector that judges by rules."""
    rules = tuple(rules)

    def detect(history: History) -> tuple[str, int] | None:
        verdict = judge(history, rules)
        return None if verdict is None else (verdict.name, int(verdict.detection_step or 0))

    return detect


def six_sigma(history: History, window: int = 128, least: int = 16) -> tuple[str, int] | None:
    """Detects the first update at which loss or gradient norm is above mean + 6 σ of the `window` updates before.

    `least`: number of updates that must come before.
    """
    found = []
    for metric in ("gradient_norm", "loss/total"):
        steps, values = history.series(metric)
        for index in range(least, len(values)):
            before = values[max(0, index - window) : index]
            if values[index] > before.mean() + 6 * before.std():
                found.append(int(steps[index]))
                break
    return ("gradient_explosion", min(found)) if found else None


DETECTORS: dict[str, Detector] = {
    "v3": by_rules(RULE_SETS["v3"]),
    "seed": by_rules(RULE_SETS["seed"]),
    "threshold": by_rules(rule.at_once() for rule in RULE_SETS["v3"]),
    "six_sigma": six_sigma,
}


def seconds_between(history: History, first: int, last: int) -> float:
    """Training time in seconds after one step, up to another."""
    steps, spent = history.aligned(["time/collect", "time/update"])
    each = spent["time/collect"] + spent["time/update"]
    return float(each[(steps > first) & (steps <= last)].sum())


def examine(recording: Recording, detect: Detector) -> dict[str, Any]:
    """What a detector says of a faulty run, as a row of the results."""
    steps = recording.history.series("update")[0]
    before = recording.fault.injected_at - 1
    injected = int(steps[before - 1]) if before else 0
    found = detect(recording.history)
    verdict, detected = found or (None, 0)
    seen = detected > injected
    return {
        "fault": recording.fault.name,
        "seed": recording.seed,
        "verdict": verdict,
        "seen": seen,
        "right": seen and verdict == recording.fault.verdict,
        "delay_updates": int(np.searchsorted(steps, detected)) + 1 - before if seen and detected is not None else None,
        "delay_seconds": seconds_between(recording.history, injected, detected)
        if seen and detected is not None
        else None,
    }


def summary(faulty: list[Recording], healthy: list[Recording], detect: Detector) -> dict[str, Any]:
    """A detector's results on all runs: recall, right verdicts, delays and false alarms, with 95 % intervals."""
    examined = [examine(each, detect) for each in faulty]
    alarms = {
        f"{each.fault.name} {each.rung} seed {each.seed}": found for each in healthy if (found := detect(each.history))
    }
    lengths = [len(each.history.series("update")[0]) for each in healthy]
    delays = [each["delay_updates"] for each in examined if each["delay_updates"] is not None]
    seconds = [each["delay_seconds"] for each in examined if each["delay_seconds"] is not None]
    return {
        "faulty_runs": len(examined),
        "recall": share(sum(each["seen"] for each in examined), len(examined)),
        "right_verdict": share(sum(each["right"] for each in examined), len(examined)),
        "delay_updates": median(delays) if delays else None,
        "delay_seconds": median(seconds) if seconds else None,
        "healthy_runs": len(healthy),
        "healthy_updates": sum(lengths),
        "longest_healthy_run": max(lengths),
        "false_alarms": share(len(alarms), len(healthy)),
        "alarms": alarms,
        "faults": examined,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", choices=["reported", "calibration", "all"], default="reported")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    chosen = [each for each in recordings() if asked.seeds == "all" or is_reported(each) == (asked.seeds == "reported")]
    healthy = [each for each in chosen if each.is_healthy]
    faulty = [each for each in chosen if not each.is_healthy]
    if not healthy or not faulty:
        parser.error("nothing recorded; first: python -m benchmarks.recordings")
    results = {name: summary(faulty, healthy, detect) for name, detect in DETECTORS.items()}

    print(f"{len(faulty)} faulty and {len(healthy)} healthy runs, seeds: {asked.seeds}")
    print("healthy: {healthy_updates:,} updates, up to {longest_healthy_run:,} in a run\n".format(**results["v3"]))
    print(f"{'rules':10} {'recall':18} {'right verdict':18} {'delay, updates':18} {'false alarms':18}")
    for name, found in results.items():
        delay = found["delay_updates"]
        words = "–" if delay is None else f"{delay[0]:.0f} [{delay[1]:.0f}, {delay[2]:.0f}]"
        cells = percent(found["recall"]), percent(found["right_verdict"]), words, percent(found["false_alarms"])
        print(f"{name:10} " + " ".join(f"{cell:18}" for cell in cells))
    print("\nwith v3:")
    for name in dict.fromkeys(each.fault.name for each in faulty):
        runs = [each for each in results["v3"]["faults"] if each["fault"] == name]
        words = ", ".join(f"{each['verdict']} ({each['delay_updates']})" if each["seen"] else "missed" for each in runs)
        print(f"  {name:24} {words}")
    for name, (verdict, step) in results["v3"]["alarms"].items():
        print(f"  FALSE ALARM {name}: {verdict} at step {step}")
    path = write("detection", {"seeds": asked.seeds, "rules": results}, asked.out)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
