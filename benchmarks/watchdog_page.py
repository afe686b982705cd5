"""`docs/watchdog.md`: the fault suite and what the benchmarks found: `python -m benchmarks.watchdog_page`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.recovery import order_matters
from benchmarks.report import RESULTS, percent, shown
from benchmarks.suite import Fault, load_suite

PAGE = Path(__file__).parent.parent / "docs" / "watchdog.md"

_HEAD = """# Can the watchdog be trusted?

`python -m benchmarks.watchdog_page` makes this page from the results; do not edit it. The rules themselves are in
[health.md](health.md). Unless it says otherwise, runs were recorded with an earlier learning rate, [one cosine
over the whole run](decisions.md#phases-rewards-and-learning-rates).

## The fault suite

`benchmarks/faults/*.yaml` has the ways in which such a training really goes wrong. Each is caused through
configuration or by a real event. The table names the right verdict, and the rungs that remove the cause.
"""

_DETECTION = """
## Detection

{faulty_runs} faulty and {healthy_runs} healthy runs were recorded once and replayed for each set of rules (`python
-m benchmarks.detection`). Nothing was calibrated on their seeds, with two exceptions: `dead_expert` was relaxed
after a look at 44 healthy runs, and at least 35 of them are among these; the bound of `policy_jumps` is three times the
largest value in any healthy run. The healthy runs have {healthy_updates:,}
updates in all, up to {longest_healthy_run:,} in a run, over every rung.

- *Recall*: the share of faulty runs with an alarm after the fault was injected. Every run counts, also one in which
  the fault has not shown in any metric.
- *Delay*: from the injection to the verdict: from the event, or from the start where the configuration is the fault.
  Some faults wait for the transition, such as `sharp_router`, which is update 20 and later.
- The runs of `learning_rate` are the seeds 21 – 23 and 27 – 31, with the present schedule and 25 updates each. Its
  five earlier seeds were looked at when `policy_jumps` was chosen; of those five, seed 13 still has the verdict
  `gat_oversmoothing`.
- The seeds 41 and 42 of `gat_explodes` and `router_learning_rate` were recorded after all rules were chosen, with the
  present schedule. In the runs of `router_learning_rate` that are missed, the router keeps all experts in use, though
  it learns 300 times faster: the fault does no harm that a metric shows.

All intervals are 95 %. To show that fewer than one healthy run in a hundred is ended would take some 300 runs
without an alarm.
"""
_RULES = """
`seed` is the brief to the letter. `threshold` has the bounds of `v3` but no persistence. `six_sigma` fires above
mean + 6 σ of loss and gradient norm over 128 updates, as OLMo-core's monitor does.
"""
_PLATEAU = """
## Plateaus

Plateaus are slowest to detect. No fault of the suite is one: games vary so much that no recorded run is known to be
flat, and a decision takes some thousand episodes. So they are simulated (`python -m benchmarks.plateau`): {runs}
runs of {episodes} episodes and the brief's three phases for each shape of the expected score. The noise is that of
recorded healthy runs, one recording for each run, drawn in blocks of 20 updates. A run is *ended* if a failing rule
fires; `late_plateau` only warns. *Within* counts from the episode at which the score begins to stand still.

The attempts of a lineage continue from checkpoints at the episodes {cuts}: after crashes with the same
configuration (*retries*), or each with another one (*rungs*). Games of 300 steps at most are *short*.

The price of seeing a standstill within 2000 episodes is the row that gains 10 %: such a run is learning. With this
noise no test sees nine in ten standstills and spares more than about nine in ten of those runs at each look.
[The choices](decisions.md#the-watchdog) stand side by side, from a sooner end to a safer one.
"""
_BESIDE_RANDOM = """
## A policy that has learnt nothing

`not_above_random` ends a run whose score is certainly less than a quarter above random play's after 2000 episodes,
and in which no gain can be seen. {runs} runs of {episodes} episodes are simulated for each row (`python -m
benchmarks.beside_random`), with the noise of real games of random play (without a mask: a mean of
{mean:.1f}, a deviation of {deviation:.2f} of it, 1000 steps at most), each beside random baselines of its own. A run
that ends by episode 2000 may still have learnt later: no test can see that before.
"""
_RECOVERY = """
## Recovery

Each fault that a rung can cure is run through the ladder, and through other strategies (`benchmarks/recovery.py`
says what they are).

- *Cost*: environment steps over those of an oracle that knows the cure and trains once from scratch.
- *Over the ladder's*: how much higher this cost is than the ladder's on the same runs. Both are means, with Student's t
  over runs; runs whose first attempt stayed healthy do not count.
- *Mildest cure*: the first rung of the ladder that removes the cause. Some runs settle above it, where the fault
  happens not to strike again.
- *Where order matters*: of {curable} such faults {last} are cured by the last rung alone, which a random order
  reaches sooner. With so many of them, order cannot save much; only in the other faults does it decide what is kept
  of the model.

The two faults with NaN strike one attempt, so a restart cures them. Seed 22 of `starved_expert` showed that
`v2_router_gat` took over how V3's router had begun. Since that was corrected, the four faults of the router that it
cures are reported from seed 24 on, on fresh seeds. Three seeds each could not distinguish the ladder's order from a
random one (the intervals overlapped), so five more, 27 – 31, were run with these two strategies alone.
"""
_RETAINED = """
## What is retained{of}

Faults on {environment}, with {budget:,} steps for all attempts of a strategy together, as many as the same experiment
without the fault has (`python -m benchmarks.recovery --base {base}`).

- *Retained*: (the last attempt's policy − random) / (control − random), each the mean {figure} of the last {games}
  games. Random play has {random:.0f}, the control {control:.0f} (mean over {seeds} seeds). Runs whose first attempt
  stayed healthy do not count. Where the last attempt failed within 20 games there is no policy: it counts as random
  play.
- *Remedies ahead*: by how much `remedies` retains more than the strategy, on the runs that both have.
- *No failure at the end*: the last attempt had not failed when all steps were spent.{printed}
- The interval is over seeds: Student's t of their means.
- *Keeps*: the rung on which the last attempt ran, with the remedy, if one was tried there.
{same}"""
_PRINTED = """ Of {} results nothing
  is left but the printed line, with a score rounded to a whole number. They do not count here, and elsewhere as having
  a policy. A later run of the benchmark makes them anew."""
_SAME = """- *remedies_alone*: {} of its runs are those of `remedies`, which never left v3 there.
"""
_GENERIC = """
## Any training

The rules `generic` judge other people's trainings. {healthy_runs} healthy runs of {kinds} kinds, with
{healthy_reports:,} reports, and the same with faults, were made for this (`python -m benchmarks.generic_health`):
classifiers by SGD, with restarts, overfitted; losses that go to 0 or far below it; opponents that circle; REINFORCE
and Q-learning on small games; and simulated rewards that come late or fall with each new level.
The rules were calibrated on other seeds.

- *False alarms*: {alarms} of the healthy runs; {warned} have a warning, such as a score that stands still.
- *Struck*: runs that the fault has harmed: NaN, or less than half of what the healthy twin gained.
- *Delay*: from the fault to the verdict, in reports. What is certain only at the end has none.
- *Or warned*: a verdict, or at least a warning that the healthy twin does not have.
- *Silent*: runs that end without a verdict and without any warning.

Three things are not certain, and at most a warning. A run whose very first report is broken has no past to compare
with. Where minibatches differ, noise may hide a gain: that a loss stands still is certain only if a gain worth the name
would be seen, and loss and scores are noise around a constant. And
weights that are lost show for certain only in a score that had risen by more than twice its own noise; a loss may rise
in healthy reinforcement learning. A score that has risen a little hides that it could be far higher.
"""
_COST = """
## Cost

The table has milliseconds of CPU for one poll of a real SQLite store (`python -m benchmarks.polling`).
[speed.md](speed.md) has the watchdog's whole share of the time, with the delivery of the metrics.
"""


def suite_table(suite: dict[str, Fault]) -> list[str]:
    rows = ["| fault | family | what is done | right verdict | cured by |", "|---|---|---|---|---|"]
    for fault in suite.values():
        if fault.name == "base":
            continue
        cured = "; ".join(f"`{rung}`: {why}" for rung, why in fault.cured_by.items()) or "no rung"
        rows.append(f"| {fault.name} | {fault.family} | {fault.cause} | `{fault.verdict}` | {cured} |")
    return rows


def measured(figure: list[float] | None) -> str:
    """A figure to three digits with its interval; none: a dash."""
    return "–" if figure is None else shown(figure, "{:.3g}")


def detection(found: dict[str, Any]) -> list[str]:
    runs = next(iter(found["rules"].values()))
    lines = [
        _DETECTION.format(**runs),
        "| rules | recall | right verdict | delay, updates | delay, seconds | false alarms, of healthy runs |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["rules"].items():
        cells = [percent(row["recall"]), percent(row["right_verdict"])]
        cells += [measured(row["delay_updates"]), measured(row["delay_seconds"]), percent(row["false_alarms"])]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += [
        _RULES,
        "With `v3`, fault by fault (delay in updates):\n",
        "| fault | verdicts |",
        "|---|---|",
    ]
    rows: dict[str, list[str]] = {}
    for each in found["rules"]["v3"]["faults"]:
        words = f"{each['verdict']} ({each['delay_updates']})" if each["seen"] else "missed"
        rows.setdefault(each["fault"], []).append(words)
    lines += [f"| {name} | {', '.join(verdicts)} |" for name, verdicts in rows.items()]
    alarms = found["rules"]["v3"]["alarms"]
    lines += [f"\nFalse alarms of `v3`: {json.dumps(alarms) if alarms else 'none'}."]
    return lines


def plateau(found: dict[str, Any]) -> list[str]:
    cuts = ", ".join(map(str, found["cuts"]))
    lines = [_PLATEAU.format(runs=found["runs"], episodes=found["episodes"], cuts=cuts)]
    within = [name for row in next(iter(found["cases"].values()))["rows"] for name in row if name.startswith("within_")]
    for case, table in found["cases"].items():
        deviation, updates, rows = table["deviation"], table["updates_of_noise"], table["rows"]
        rules = [name for name in rows[0] if name not in ("shape", "meaning", "ended", *within)]
        shown = [*rules, "ended", *dict.fromkeys(within)]
        heads = [*(f"`{name}`" for name in rules), "ended", *(f"within {name[7:]}" for name in dict.fromkeys(within))]
        about = f"{updates:,} updates of noise, a deviation of {deviation:.2f} of the mean"
        lines += [
            f"\n{case[0].upper()}{case[1:]} ({about}):\n",
            "| expected score | " + " | ".join(heads) + " |",
            "|---" * (len(heads) + 1) + "|",
        ]
        for row in rows:
            cells = [percent(row[name]) if name in row else "" for name in shown]
            lines.append(f"| {row['meaning']} | " + " | ".join(cells) + " |")
    return lines


def beside_random(found: dict[str, Any]) -> list[str]:
    _, mean, deviation = found["random_play"]["1000"]
    sizes = [str(size) for size in found["baselines"]]
    heads = [f"`not_above_random` by 2000, {size} games | ever" for size in sizes]
    heads += [f"`{name}` ever, {size} games" for name in ("below_random", "as_random") for size in sizes]
    lines = [
        _BESIDE_RANDOM.format(**{**found, "mean": mean, "deviation": deviation}),
        "| expected score | " + " | ".join(heads) + " |",
        "|---" * (1 + 4 * len(sizes)) + "|",
    ]
    for shape, row in found["shapes"].items():
        ended = [percent(row[size]["not_above_random"][when]) for size in sizes for when in ("by_2000", "ever")]
        others = [percent(row[size][name]["ever"]) for name in ("below_random", "as_random") for size in sizes]
        lines.append(f"| {shape} | " + " | ".join([*ended, *others]) + " |")
    runs, beside = found["recorded"], found["recorded_baselines"]
    long = sum(run["episodes"] >= 2000 for run in runs)
    fired = {
        name: [f"{run['run']} ({size} games: {run[size][name]})" for run in runs for size in sizes if run[size][name]]
        for name in ("not_above_random", "below_random", "as_random")
    }
    lines.append(
        f"\nThe {len(runs)} recorded healthy runs of 1000 episodes and more, {long} of them of 2000, were judged "
        f"beside {beside} baselines each. In so many of these a rule fired: "
        + "; ".join(f"`{name}` {', '.join(of) or 'in none'}" for name, of in fired.items())
        + "."
    )
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


def what_is_retained(found: dict[str, Any]) -> list[str]:
    control = list(found["control"].values())
    mean = sum(control) / len(control)
    printed = sum(row["only_printed"] for row in found["strategies"].values())
    same = sum("same_as" in each for run in found["runs"] for each in run["strategies"].values())
    words = {
        "control": mean,
        "seeds": len(control),
        "figure": "return" if found["base"] == "scout" else "score",
        "of": "" if found["base"] == "scout" else f" on {found['environment'].removesuffix('-v0')}",
        "printed": _PRINTED.format(printed) if printed else "",
        "same": _SAME.format(same) if same else "",
    }
    lines = [
        _RETAINED.format(**{**found, **words}),
        "| strategy | runs | seeds | retained | remedies ahead | no failure at the end | keeps |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["strategies"].items():
        kept = ", ".join(f"`{label}` {count}" for label, count in row["kept"].items())
        counts, healthy = f"{row['runs']} | {row['seeds']}", percent(row["healthy"])
        ahead = measured(row["remedies_ahead"])
        lines.append(f"| {name} | {counts} | {measured(row['retained'])} | {ahead} | {healthy} | {kept} |")
    strategies = list(found["strategies"])
    lines += ["\n| fault | seed | " + " | ".join(strategies) + " |", "|---|---|" + "---|" * len(strategies)]
    for run in found["runs"]:
        results = [run["strategies"].get(name) for name in strategies]
        cells = [f"{each['retained']:.2f} `{each['kept']}`" if each else "–" for each in results]
        lines.append(f"| {run['fault']} | {run['seed']} | " + " | ".join(cells) + " |")
    return lines


def generic(found: dict[str, Any]) -> list[str]:
    alarms, warned = percent(found["false_alarms"]), percent(found["warned"])
    kinds = sum(count > 0 for count in found["kinds"].values())
    lines = [
        _GENERIC.format(**{**found, "kinds": kinds, "alarms": alarms, "warned": warned}),
        "| fault | struck | seen | delay, reports | or warned | silent | by | missed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["faults"].items():
        counts = [", ".join(f"{key} {count}" for key, count in row[part].items()) or "–" for part in ("by", "missed")]
        cells = [str(row["struck"]), percent(row["seen"]), measured(row["delay_reports"])]
        lines.append(
            f"| {name} | " + " | ".join([*cells, percent(row["seen_or_warned"]), str(row["silent"]), *counts]) + " |"
        )
    if found["alarms"]:
        lines.append(f"\nFalse alarms: {json.dumps(found['alarms'])}.")
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
    sections = {
        "detection": detection,
        "plateau": plateau,
        "beside_random": beside_random,
        "recovery": recovery,
        "retained": what_is_retained,
        "retained_score": what_is_retained,
        "generic_health": generic,
        "polling": cost,
    }
    for name, section in sections.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts += section(json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"written to {PAGE}")
