"""Writes `docs/health.md` from the rules themselves, so that it cannot drift: `python -m pipeline.health.page`."""

from __future__ import annotations

from pathlib import Path

from pipeline.health.cause import EXPLAINS, REACH
from pipeline.health.definitions import DEFINITIONS, Definition
from pipeline.health.names import GRADIENTS, LOSSES, SCORES
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import BANDS, RULE_SETS
from pipeline.health.verdict import MEANINGS

PAGE = Path(__file__).parent.parent.parent / "docs" / "health.md"

_HEAD = """# Health: what is watched, and when a run has failed

This page is made from the rules in `pipeline/health/` (`python -m pipeline.health.page`); a test keeps it so.
The metrics are defined below (`pipeline/health/definitions.py`; what a run logs without a definition fails a test);
"healthy" is where the middle 90 % of the updates of healthy V3 runs of 300 k steps and more were.

A rule looks at metrics once per report; this project's trainer reports once per PPO update. It fires when its condition
has held as often as it asks for. The first rule with the action `fail` that fires gives the verdict, with the values as
evidence, unless another failure [explains it](#a-failure-that-explains-another). The onset is the first update at which
the condition held, even if that lies in the grace period. The next attempt starts from a checkpoint [from before the
decline](ladder.md#where-the-next-attempt-starts) that led to the onset. A plateau breaks no weights: after it, the
newest checkpoint will do. A condition on a bound takes no notice of NaN; `finite: false` asks for it.

A rule with the action `warn` ends nothing. It is judged while an attempt runs, every 30 seconds at most, and is told
once: in the log, in the run's tag `ladder.warnings`, by `ladder status`, on the page and to `notify.command`. What is
certain only when the training has ended is told then. The tag is then written anew, with every metric that was found.
"""

_WHY_NOT_SEED = """
### Why the brief's thresholds are not the default

| the brief | on a healthy run |
|---|---|
| α-entropy > 1.2 is abnormal | softmax warm-up begins at ln 4 = 1.386: it fires at the first update |
| α-entropy < 0.3 is collapse | a router that has specialised, with all experts in use, is there too |
| α-entropy 0.5 – 1.0 is normal | two experts cannot exceed ln 2 = 0.693 |
| each expert 10 – 40 % | two experts cannot both be below 50 % |
| attention variance > 0.1 is normal | its maximum for a node of degree d is (d − 1)/d², below 0.1 from d = 9 on |
| gradient norm > 10 is abnormal | one spike before clipping is harmless, and the level depends on the reward's scale |
"""


_SEED = """The brief has a bound for the first five rules, and not how long a value must be abnormal: here one update is
enough. It asks for NaN detection and rollback, and for action where the score stays unchanged for long, without any
number. So these numbers are this project's own, not the brief's: more than 3 rollbacks; 16 of 20 updates with
minibatches that are not finite; of the plateau the 1000 episodes, the tenth of the mean, the 95 % bound, and two checks
500 episodes apart.
"""


_GENERIC = f"""These rules look for metrics by the words in their names, as in `train/policy_loss`, `gradNorm`,
`ep_rew_mean`: at most 50 metrics a rule, and none under `system/`, `random/`, `best/`, `cost/` or `time/`. Each metric
is judged by itself, in the unit of its own reports. "Ended" means that the trainer ended with exit code 0: some
findings are certain only then. `health.rules: none` has no rule; `health.extra` adds your own to any of them.

| words | of metrics that |
|---|---|
| {", ".join(word.replace("*", "…") for word in LOSSES)} | a training computes from its outputs |
| {", ".join(GRADIENTS)} | tell the size of its gradients |
| {", ".join(SCORES)} | should rise |
"""


_CAUSES = f"""
### A failure that explains another

An explosion may be over after one update, and leaves weights with which the router collapses and all nodes are alike.
These rules need eight updates of ten, and would be the first to fire. So when one of them fires, each failing rule on a
verdict that explains it is asked again with half its patience (rounded up). If it fires before that detection, and its
condition held at most {REACH} updates before the onset, the verdict is its own, with the evidence of both. A plateau is
explained by nothing: a policy that becomes certain takes a large step on its way there.

| verdict | explains |
|---|---|
"""


def render() -> str:
    """The page as Markdown."""
    parts = [_HEAD, "## Verdicts\n", "| verdict | meaning |", "|---|---|"]
    parts += [f"| `{name}` | {meaning} |" for name, meaning in MEANINGS.items()]
    parts += [_CAUSES + "\n".join(f"| `{name}` | `{'`, `'.join(others)}` |" for name, others in EXPLAINS.items())]
    parts += [
        "\n## The monitored metrics, as they are shown while a run is under way\n",
        "| shown as | metric | normal | abnormal outside of |",
    ]
    parts += ["|---|---|---|---|"]
    for band in BANDS:
        notes = [
            f"{side} bound only while " + " and ".join(f"`{metric}` > {value:g}" for metric, value in when)
            for side, when in (("upper", band.upper_counts_when), ("lower", band.lower_counts_when))
            if when
        ]
        limits = f"{band.abnormal[0]:.3g} – {band.abnormal[1]:.3g}" + "".join(f"; {note}" for note in notes)
        parts.append(f"| {band.label} | `{band.metric}` | {band.normal[0]:.3g} – {band.normal[1]:.3g} | {limits} |")
    parts += [
        "\n## Every metric\n",
        "Logged once per PPO update, in one batch, with the step = environment steps (of the training's schedule: a",
        "warm-started attempt goes on counting where its checkpoint was). Names with a slash are grouped under their",
        "prefix in the MLflow UI. E: experts, α: the router's distribution, ᾱ: its mean over the batch.\n",
    ]
    parts += [
        "| metric | formula | unit | source | healthy | a bad value, and what to do |",
        "|---|---|---|---|---|---|",
    ]
    parts += [
        "| "
        + " | ".join([f"`{each.name}`", each.formula, each.unit, each.source, each.healthy, each.bad or "–"])
        + " |"
        for each in (_escaped(definition) for definition in DEFINITIONS)
    ]
    titles = {
        "v3": "`health.rules: v3` (the default of this project's trainer): calibrated so that healthy runs stay quiet",
        "generic": "`health.rules: generic` (the default with a `trainer.command`): for any training",
        "seed": "`health.rules: seed`: the brief to the letter",
    }
    words = {"generic": _GENERIC, "seed": _SEED}
    for name, title in titles.items():
        parts += [f"\n## {title}\n", *([words[name]] if name in words else [])]
        parts += ["| rule | verdict | condition | when | action |", "|---|---|---|---|---|"]
        parts += [_row(rule) for rule in RULE_SETS[name]]
        parts.append("")
        parts += [f"- **{rule.name}**: {rule.meaning}" for rule in RULE_SETS[name]]
    return "\n".join(parts) + "\n" + _WHY_NOT_SEED


def _escaped(definition: Definition) -> Definition:
    """The definition with its bars escaped, so that none ends a cell of a table."""
    return Definition(**{name: value.replace("|", "\\|") for name, value in vars(definition).items()})


def _row(rule: Rule) -> str:
    words = rule.describe()
    return f"| {rule.name} | `{rule.verdict}` | {words.condition} | {words.when} | {rule.action} |"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
