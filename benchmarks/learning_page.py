"""docs/learning.md and docs/learning-without-paths.md with their pictures, from results of `benchmarks.learning`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from scipy import stats

from benchmarks.report import RESULTS, mean, shown
from pipeline.compare.statistics import difference, probability_of_improvement

matplotlib.use("Agg")
from matplotlib import pyplot

Runs = dict[str, list[dict[str, Any]]]
"""Variant → its runs."""


@dataclass(frozen=True)
class Page:
    """A page of runs that may be compared: all were made with the same observations and the same schedule."""

    name: str
    """Of the page under `docs/` and, with underscores, of the results' folder."""
    title: str
    about: tuple[str, ...]
    """Lines about the circumstances of these runs."""

    @property
    def path(self) -> Path:
        return RESULTS.parent.parent / "docs" / f"{self.name}.md"

    @property
    def folder(self) -> Path:
        return RESULTS / self.name.replace("-", "_")


NOW = Page(
    "learning",
    "Does V3 learn, and what helps?",
    (
        "In V3 the hero's node of the graph tells [where paths lead](decisions.md#the-policy); the plain policy and",
        "SB3's are not told. `script` learns nothing: it follows the paths to objects, then to the stairs and down,",
        "else to the frontier. SB3's and `ppo_no_mask` are offered all actions, also those that NetHack refuses. What",
        "each part of V3 brought before there were paths is on [a page of its own](learning-without-paths.md).",
    ),
)
WITHOUT_PATHS = Page(
    "learning-without-paths",
    "What helped V3 before its graph knew where paths lead?",
    (
        "All runs were recorded without [paths](decisions.md#the-policy), and with an earlier learning rate,",
        "[one cosine over the whole run](decisions.md#phases-rewards-and-learning-rates). [How V3 learns",
        "now](learning.md).",
    ),
)
_EXPERTS = "expert_usage/"


def figure(run: dict[str, Any]) -> float:
    """What a run is judged by: mean of the last 300 episodes."""
    return float(run["task_return" if run["environment"].startswith("NetHackScout") else "score"])


def table(runs: Runs) -> list[list[str]]:
    """A row for each variant, best first: seeds, mean with its interval, chance that V3 is better, depth."""
    figures = {variant: np.array([figure(run) for run in found]) for variant, found in runs.items()}
    rows = []
    for variant in sorted(figures, key=lambda name: -figures[name].mean()):
        values = figures[variant]
        depth = float(np.mean([run["depth"] for run in runs[variant]]))
        chance = ""
        if variant != "v3" and "v3" in figures:
            chance = shown(probability_of_improvement(figures["v3"], values), "{:.2f}")
        rows.append([variant, str(len(values)), shown(mean(values), "{:.1f}"), chance, f"{depth:.2f}"])
    return rows


HEADER = ["variant", "seeds", "mean", "P(v3 better)", "depth"]


def routing(runs: Runs) -> list[list[str]]:
    """Medians over seeds of what the router did in the last fifth of each run; of the variants that have one."""
    rows = []
    for variant, found in runs.items():
        tails = [run["last_fifth"] for run in found if run.get("last_fifth", {}).get("alpha_entropy") is not None]
        if not tails:
            continue
        usage = [[value for name, value in tail.items() if name.startswith(_EXPERTS)] for tail in tails]
        first, last = ([run["specialisation"][k][1] for run in found] for k in (0, -1))
        rows.append(
            [
                variant,
                f"{np.median([tail['alpha_entropy'] for tail in tails]):.2f}",
                " – ".join(f"{100 * np.median([pick(each) for each in usage]):.0f}" for pick in (min, max)) + " %",
                f"{np.median(first):.2f} → {np.median(last):.2f}",
                ", ".join(sorted({run["verdict"] for run in found})),
            ]
        )  # fmt: skip
    return rows


PARTS = {
    "v3_shared": "the brief's sum alone, instead of a shared expert beside it",
    "v3_one_expert": "four experts, instead of one of the same size",
    "v3_no_graph": "the graph",
    "softmax_only": "sparsemax, instead of softmax throughout",
    "v3_no_phases": "the phases, instead of the last one from the start",
    "v3_centred_reward": "leaving the reward as it is, instead of centring it",
    "v3_little_diversity": "the brief's diversity term, instead of a tenth of it",
    "freeze_gat": "training the encoder, instead of freezing it as it was drawn",
    "v3_no_paths": "paths in the graph",
    "v3_no_mask": "the mask of what NetHack refuses",
    "ppo_paths": "all of it, instead of a plain policy that is told the same paths",
    "ppo_no_mask": "all of it, instead of a plain policy that is offered everything",
    "ppo": "all of it, instead of a plain policy of the same size",
}
FEWEST = 4
"""Runs of each; with three, no exact test can reach 5 %."""
PARTS_HEADER = ["what V3 has", "against", "V3 is higher by", "exact p", "runs", "so it"]


def parts(runs: Runs) -> list[list[str]]:
    """What each part of V3 brings: the difference to the variant without it, and whether it is shown.

    As in docs/tuning.md both must agree: the interval excludes 0, and so does the exact Mann-Whitney test (two-sided).
    """
    rows = []
    for variant, words in PARTS.items():
        if variant not in runs or "v3" not in runs:
            continue
        ours, others = ([figure(run) for run in runs[name]] for name in ("v3", variant))
        apart = difference(np.array(others), np.array(ours))
        p_value = float(stats.mannwhitneyu(ours, others, method="exact").pvalue)
        found = "cannot be told to help"
        if p_value < 0.05 and not apart.low <= 0 <= apart.high:
            found = "helps" if apart.value > 0 else "harms"
        if min(len(ours), len(others)) < FEWEST:
            found = "too few runs to tell"
        rows.append([words, variant, shown(apart, "{:+.1f}"), f"{p_value:.2g}", f"{len(ours)}, {len(others)}", found])
    return rows


ROUTING_HEADER = ["variant", "α-entropy (nats)", "load of the least and the most used", "specialisation", "verdicts"]


_NAMES = ("v3", "ppo", "sb3", *(name for name in PARTS if name != "ppo"), "two_experts", "v2_router_gat")
_NO_GREY = (0, 2, 4, 9, 6, 8, 10, 12, 16, 18, 1, 7, 5, 3, 11, 13, 17)
COLOURS = {name: colormaps["tab20"](number) for name, number in zip(_NAMES, _NO_GREY, strict=True)}
"""The same in every panel."""
LEVELS = {"random": "--", "script": ":"}
"""Variants that do not learn, and the styles of their lines."""
MANY = 4
"""Curves in a panel; with more, only V3's range is shown."""


def draw(everything: dict[tuple[str, int], Runs], path: Path) -> None:
    """Curves: means over seeds of the last 100 episodes; shaded: the range. A panel for each environment and length."""
    panels = -(-len(everything) // 2)
    figure_, axes = pyplot.subplots(panels, 2, figsize=(13, 4.4 * panels), squeeze=False, layout="constrained")
    for axis in axes.flat[len(everything) :]:
        axis.axis("off")
    for axis, ((environment, steps), runs) in zip(axes.flat, everything.items(), strict=False):
        column = 2 if environment.startswith("NetHackScout") else 1
        grid = np.linspace(steps / 10, steps, 60)
        learning = {variant: found for variant, found in runs.items() if variant not in LEVELS}
        for variant, found in sorted(learning.items(), key=lambda each: -np.mean([figure(run) for run in each[1]])):
            colour = COLOURS[variant]
            curves = [np.interp(grid, *np.array(run["curve"])[:, [0, column]].T) for run in found]
            axis.plot(grid / 1000, np.mean(curves, axis=0), color=colour, label=f"{variant} ({len(found)})")
            if len(found) > 1 and (variant == "v3" or len(learning) <= MANY):
                low, high = np.min(curves, axis=0), np.max(curves, axis=0)
                axis.fill_between(grid / 1000, low, high, color=colour, alpha=0.12, lw=0)
        for variant, style in LEVELS.items():
            # Their figures do not depend on how long the others are trained.
            level = [
                figure(run)
                for (where, _), each in everything.items()
                if where == environment
                for run in each.get(variant, [])
            ]
            if level:
                axis.axhline(np.mean(level), color="grey", ls=style, label=variant)
        axis.set_title(f"{environment}, {steps:,} steps", loc="left")
        axis.set_xlabel("thousands of environment steps")
        axis.set_ylabel("return" if column == 2 else "the game's own score")
        axis.legend(fontsize=8, ncols=2, loc="best")
        axis.grid(alpha=0.3)
    figure_.savefig(path, dpi=80)
    pyplot.close(figure_)


_CURVES = "Curves: mean over seeds of the last 100 episodes; shaded: the range, of V3 alone among many"


def render(page: Page, everything: dict[tuple[str, int], Runs]) -> str:
    """The page as Markdown."""
    commits = sorted({run["commit"][:9] for runs in everything.values() for found in runs.values() for run in found})
    lines = [
        f"# {page.title}",
        "",
        "`python -m benchmarks.learning --report` makes this page from the files under",
        f"`benchmarks/results/{page.folder.name}/`; do not edit it.",
        "",
        "The figure of a run is the mean of the game's own score over its last 300 episodes (NetHackScout: of the",
        "task's return). The unit is the run: intervals are 95 %, by Student's t over seeds; two seeds have none.",
        "*P(v3 better)* is the probability that a run of V3 has the higher figure, with the interval of the rank",
        "test. *Depth* is the mean deepest dungeon level of those episodes. All variants have the same step cap",
        "(1000), the same shaping, the same number of environment steps and the same schedule; SB3 has a constant",
        "rate instead.",
        "",
        *page.about,
        "",
        f"Commits: {', '.join(commits)}.",
        "",
        f"![{_CURVES}]({page.name}.png)",
    ]
    for (environment, steps), runs in everything.items():
        lines += ["", f"## {environment}, {steps:,} steps", "", *_markdown(HEADER, table(runs))]
        if found := parts(runs):
            lines += [
                "",
                "What each part brings: the difference of the means with Welch's interval, and the exact",
                "two-sided Mann-Whitney test. Both must show an effect.",
                "",
            ]
            lines += _markdown(PARTS_HEADER, found)
        if found := routing(runs):
            lines += ["", "What the router did in the last fifth of each run, medians over seeds:", ""]
            lines += _markdown(ROUTING_HEADER, found)
    return "\n".join(lines) + "\n"


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
