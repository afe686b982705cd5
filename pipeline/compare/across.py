"""The summary of several experiments; the unit is the run."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from pipeline.compare import charts
from pipeline.compare.frames import Comparison
from pipeline.compare.scores import SCORE, plain_interval, verdict_on_score
from pipeline.compare.statistics import Interval, interval
from pipeline.compare.target import NOT_REACHED, by_rung, to_score, to_target
from pipeline.compare.timeline import legend, tone, words

MIXED = "both configurations are counted together here; they stand side by side below"


def across(night: Comparison, colours: dict[str, int], *, mixed: bool = False) -> str:
    """HTML of the summary of several experiments; the unit is the run. `mixed`: they are of two configurations."""
    settled, rungs, better = night.settled(), night.rungs(), night.improvement()
    count, fine = len(night.experiments), bool(night.experiments.script.all())
    ended = night.experiments[night.experiments.outcome == "healthy"]
    compared = int((night.experiments.outcome == "compared").sum())
    done = len(ended) + compared
    above_random = sum(verdict_on_score(row)[1] == "good" for row in ended.itertuples())
    how = "ended healthy" if not compared else "trained every rung" if compared == done else "ended in good order"
    policies = "runs" if fine else "policies"
    scored = not fine or bool(np.isfinite(night.experiments.score).any())
    random = not fine or bool(np.isfinite(night.experiments.random).any())
    against = ""
    if night.experiments.random.notna().any() and not compared:
        against = (
            f', <b class="{"good" if above_random == count else "wait"}">{above_random}</b> with a policy clearly '
            f"better than random; random policies score {plain_interval(*settled.loc['random', SCORE], fine=fine)}"
        )
    rows = "".join(
        f'<tr><td><a href="#{row.parent}">{escape(night.called[row.parent])}</a></td>'
        f'<td class="{tone(row.outcome)}">{escape(words(row.outcome))}</td>'
        f"<td>{escape(str(row.settled_rung or '–'))}</td>"
        f"<td class='n'>{row.attempts}</td><td class='n'>{row.minutes:.1f} min</td>"
        + f"<td class='n'>{plain_interval(row.score, row.score_low, row.score_high, fine=fine)}</td>" * scored
        + f"<td class='n'>{plain_interval(row.random, row.random_low, row.random_high, fine=fine)}</td>" * random
        + "</tr>"
        for row in night.experiments.itertuples()
    )
    headings = "<th class='n'>score</th>" * scored + "<th class='n'>random</th>" * random
    means, note = "", ""
    if scored:
        if len(ended):
            mean = plain_interval(*settled.loc["settled", SCORE], fine=fine)
            means = f" Settled {policies} score {mean} (interquartile means over experiments)."
        note = (
            '<p class="note" style="margin-top:14px">The unit is the run, not the episode. A score counts for its rung '
            "where the attempt was trained to its end. One run has no interval."
            + f" {MIXED[0].upper()}{MIXED[1:]}." * mixed
            + "</p>"
        )
    dots = [
        (f"settled {policies} ({settled.experiments['settled']})", *settled.loc["settled", SCORE], "settled"),
        (f"random policy ({night.experiments.random.notna().sum()})", *_random(night), "c6"),
        *((f"{rung} ({each.to_the_end:.0f})", *each[SCORE], f"c{colours[rung]}") for rung, each in rungs.iterrows()),
    ]
    figure = charts.intervals(dots, "Score by rung: interquartile mean, 95 % interval over runs", "score")
    chance = [
        (
            f"{row.x} over {row.y} ({_of_seeds(row.seeds)})",
            row.probability,
            row.probability_low,
            row.probability_high,
            f"c{colours[row.x]}",
        )
        for row in better[better.x.map(list(colours).index) > better.y.map(list(colours).index)].itertuples()
    ]
    chances = charts.intervals(chance, "Probability that one rung scores higher than another")
    if chances:
        note += f'<p class="note">{escape(of_comparisons(better))}</p>'
    if fine:
        first = [name for parent in night.experiments.parent for name in night.shown[parent].metrics[:2]]
        curves = [charts.metric_curves(night, night.attempts, name) for name in dict.fromkeys(first)]
    else:
        curves = [charts.score_curves(night, night.attempts, colours, "step")]
    note += _to_target(night)
    drawn = "".join(f"<figure>{each}</figure>" for each in (figure, *curves, chances) if each)
    return (
        f"<header><h1>{escape(', '.join(dict.fromkeys(night.experiments.experiment)))}: {count} experiments</h1>"
        f'<p class="lead"><b class="{"good" if done == count else "wait"}">{done} of {count}</b> {how}'
        f"{against}.{means}</p></header>"
        "<section><div class='scroll'><table><tr><th>experiment</th><th>outcome</th><th>settled on</th>"
        f"<th class='n'>attempts</th><th class='n'>time</th>{headings}</tr>{rows}</table></div>{note}"
        f'{legend(night, night.attempts)}<div class="two">{drawn}</div>{_cut_short(night, fine=fine)}</section>'
    )


def of_comparisons(better: pd.DataFrame) -> str:
    """How the probabilities of `Comparison.improvement` are to be read: how many there are, and of what."""
    count = len(better) // 2
    paired = int((better.seeds > 0).sum()) // 2
    how = "seed by seed" if paired == count else "not seed by seed" if not paired else f"{paired} of them seed by seed"
    many = f"{count} comparison{'s' * (count != 1)}, {how}"
    if count > 1:
        many += "; the intervals are not widened for their number, so a single one that leaves out 0.5 proves little"
    if paired < count:
        many += ". Rungs without a seed in common were trained on different seeds, and may differ for that reason"
    return f"{many}."


def _to_target(night: Comparison) -> str:
    """HTML of what it took each rung to get to a score; empty where no attempt has a running score."""
    rungs = by_rung(night, night.target)
    if rungs.empty:
        return ""
    target = to_target(night, night.target).target.iloc[0]
    rows = "".join(
        f"<tr><td>{escape(str(rung))}</td><td class='n'>{each.reached:.0f} of {each.attempts:.0f}</td>"
        + (
            f"<td class='n'>{each.steps:,.0f}</td><td class='n'>{each.minutes:.1f} min</td></tr>"
            if np.isfinite(each.steps)
            else f"<td class='n' colspan='2'>{NOT_REACHED} by half</td></tr>"
        )
        for rung, each in rungs.iterrows()
    )
    return (
        f"<div class='scroll'><table style='width:auto'><tr><th>cost {to_score(target)}</th>"
        "<th class='n'>reached by</th><th class='n'>steps (median)</th><th class='n'>time (median)</th></tr>"
        f"{rows}</table></div>"
        '<p class="note">Until the running score first reached it, of each attempt alone. One that did not counts as '
        "later than any that did.</p>"
    )


def _of_seeds(shared: int) -> str:
    return f"{shared} seed{'s' * (shared != 1)}" if shared else "other seeds"


def _cut_short(night: Comparison, *, fine: bool) -> str:
    """HTML of the attempts whose scores count for no rung; empty: there are none."""
    rows = "".join(
        f"<tr><td>{escape(row.experiment)}, seed {row.seed}</td><td>{row.attempt} {escape(row.rung)}</td>"
        f"<td class=\"{tone(row.verdict)}\">{escape(words(row.verdict))}</td><td class='n'>{row.episodes:,}</td>"
        f"<td class='n'>{plain_interval(row.score, row.score_low, row.score_high, fine=fine)}</td></tr>"
        for row in night.cut_short().itertuples()
    )
    if not rows:
        return ""
    return (
        '<p class="note">Cut short, by a verdict, an error or a person: the score that was reached counts for no rung.'
        "</p><div class='scroll'><table><tr><th>experiment</th><th>attempt</th><th>verdict</th>"
        f"<th class='n'>to episode</th><th class='n'>score reached</th></tr>{rows}</table></div>"
    )


def _random(night: Comparison) -> Interval:
    """The score of random play over experiments, whether these have settled or not."""
    return interval(night.experiments.random.dropna().to_numpy())
