"""`docs/watchdog.md`: the fault suite and what the benchmarks found: `python -m benchmarks.watchdog_page`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.recovery import order_matters
from benchmarks.report import RESULTS, percent
from benchmarks.suite import Fault, load_suite

PAGE = Path(__file__).parent.parent / "docs" / "watchdog.md"

_HEAD = """# Can the watchdog be trusted?

This page is made from results by `python -m benchmarks.watchdog_page`. The rules themselves are in
[health.md](health.md).

## The fault suite

`benchmarks/faults/*.yaml`: ways in which such a training really goes wrong, each caused through configuration or a
real event. The verdict is the right one; the rungs are those that remove the cause.
"""

_DETECTION = """
## Detection

{faulty_runs} faulty and {healthy_runs} healthy runs with seeds on which nothing was calibrated, but for one rule:
`dead_expert` was relaxed after 44 healthy runs had been looked at, at least 35 of which are among these. They were
recorded once and replayed for each set of rules (`python -m benchmarks.detection`). The healthy ones are
{healthy_updates:,} updates in all, up to {longest_healthy_run:,} in a run, over every rung. Recall: an alarm at most
five updates before the fault's own symptom, or after it. Delay: from the symptom to the verdict. In {did_not_strike}
more runs the fault was there but its symptom never came; they do not count (what `v3` said of them:
{said}). All intervals 95 %. To show that fewer than one healthy run in a
hundred is ended would take some 300 without an alarm.
"""
_RULES = """
`seed` is the brief to the letter; `threshold` has the bounds of `v3` but no persistence; `six_sigma` is mean + 6 σ of
loss and gradient norm over 128 updates, as OLMo-core has it.
"""
_PLATEAU = """
## A score that stands still

No fault of the suite is one whose score merely stands still: games vary so much that no recorded run is known to be
flat, and telling takes some thousand episodes. So this is simulated (`python -m benchmarks.plateau`): {runs} runs of
3000 episodes for each trend, the noise that of {updates_of_noise:,} updates of recorded healthy runs, with a deviation
of {deviation:.2f} of the mean from game to game. Trends are relative to the mean; the rules call less than a tenth for
each 1000 episodes a plateau. The table has the share of runs that were ended.
"""
_RECOVERY = """
## Recovery

Each fault that a rung can cure, through the ladder and through what else one could do (`python -m
benchmarks.recovery`, which says what the strategies are). Cost: environment steps over those of an oracle who knew
the cure and trained once from scratch, and how much more than the ladder's on the same runs (means, bootstrapped
over runs; those whose first attempt stayed healthy do not count). The mildest cure: the first rung of the ladder that
removes the cause; some settle above it, where the fault happens not to strike again. Of {curable} such faults {last}
are cured by the last rung alone, which a random order comes to sooner; with so many of them, order cannot save much,
and it matters for what is kept of the model only in the others (a column of its own).
The two with NaN strike one attempt, which is why a restart cures them. Seed 22 of `starved_expert` showed that
`v2_router_gat` took over how V3's router had begun; since that is mended, the four faults of the router that it cures
are reported from seed 24 on, which nobody had seen before. Three seeds each could not tell the ladder's order from a
random one (the intervals overlapped), so five more, 27 – 31, were run with these two strategies alone.
"""
_COST = """
## Cost

One poll of a real SQLite store, milliseconds of CPU (`python -m benchmarks.polling`). What the watchdog takes in all,
delivering the metrics included: docs/speed.md.
"""


def suite_table(suite: dict[str, Fault]) -> list[str]:
    rows = ["| fault | family | what is done | right verdict | cured by |", "|---|---|---|---|---|"]
    for fault in suite.values():
        if fault.name == "base":
            continue
        cured = "; ".join(f"`{rung}`: {why}" for rung, why in fault.cured_by.items()) or "no rung"
        rows.append(f"| {fault.name} | {fault.family} | {fault.cause} | `{fault.verdict}` | {cured} |")
    return rows


def measured(figure: list[float] | None, unit: str = "") -> str:
    return "–" if figure is None else f"{figure[0]:.3g}{unit} [{figure[1]:.3g}, {figure[2]:.3g}]"


def detection(found: dict[str, Any]) -> list[str]:
    runs = next(iter(found["rules"].values()))
    lines = [
        _DETECTION.format(
            **runs, said=", ".join(f"{name}: {verdict or 'nothing'}" for name, verdict in runs["said_of_those"].items())
        ),
        "| rules | recall | right verdict | delay, updates | delay, seconds | false alarms, of healthy runs |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["rules"].items():
        cells = [percent(row["recall"]), percent(row["right_verdict"])]
        cells += [measured(row["delay_updates"]), measured(row["delay_seconds"]), percent(row["false_alarms"])]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += [
        _RULES,
        "With `v3`, fault by fault (delay in updates; negative: before the symptom):\n",
        "| fault | verdicts |",
        "|---|---|",
    ]
    rows: dict[str, list[str]] = {}
    for each in found["rules"]["v3"]["faults"]:
        rows.setdefault(each["fault"], []).append(f"{each['verdict'] or 'missed'} ({each['delay_updates']})")
    lines += [f"| {name} | {', '.join(verdicts)} |" for name, verdicts in rows.items()]
    alarms = found["rules"]["v3"]["alarms"]
    lines += [f"\nFalse alarms of `v3`: {json.dumps(alarms) if alarms else 'none'}."]
    return lines


def plateau(found: dict[str, Any]) -> list[str]:
    rules = [name for name in found["trends"][0] if name != "trend"]
    lines = [
        _PLATEAU.format(**found),
        "| change per 1000 episodes | "
        + " | ".join(f"`{name}`" if name != "either" else name for name in rules)
        + " |",
        "|---" * (len(rules) + 1) + "|",
    ]
    for row in found["trends"]:
        lines.append(f"| {row['trend']:+.0%} | " + " | ".join(percent(row[name]) for name in rules) + " |")
    return lines


def recovery(found: dict[str, Any]) -> list[str]:
    curable = [each for each in load_suite().values() if each.of_training and each.cured_by]
    lines = [
        _RECOVERY.format(curable=len(curable), last=sum(not order_matters(each) for each in curable)),
        "| strategy | runs | ends healthy | mildest cure or above | where order matters | cost | over the ladder's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["curable"].items():
        more = "" if name == "ladder" else measured(row["more_than_the_ladder"])
        cells = [percent(row[share]) for share in ("healthy", "mildest", "mildest_where_order_matters")]
        cells += [measured(row["cost_over_oracle"]), more]
        lines.append(f"| {name} | {row['runs']} | " + " | ".join(cells) + " |")
    lines += ["\nWhat the ladder did:\n", "| fault | seed | attempts |", "|---|---|---|"]
    for run in found["runs"]:
        result = run["strategies"].get("ladder")
        if result:
            pairs = zip(result["rungs"], result["verdicts"], strict=True)
            story = " → ".join(f"{rung}: {verdict}" for rung, verdict in pairs)
            lines.append(f"| {run['fault']} | {run['seed']} | {story} |")
    return lines


def cost(found: dict[str, Any]) -> list[str]:
    rows = [f"| {updates} | {measured(figure)} |" for updates, figure in found["milliseconds"].items()]
    return [
        _COST,
        "| updates in the run | ms a poll |",
        "|---|---|",
        *rows,
    ]


def render() -> str:
    """The page as Markdown."""
    parts = [_HEAD, *suite_table(load_suite())]
    sections = {"detection": detection, "plateau": plateau, "recovery": recovery, "polling": cost}
    for name, section in sections.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts += section(json.loads(path.read_text()))
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(f"written to {PAGE}")
