"""The summary of several experiments; the unit is the run."""

from __future__ import annotations

from html import escape

import numpy as np

from pipeline.compare import charts
from pipeline.compare.frames import Comparison
from pipeline.compare.scores import SCORE, plain_interval, verdict_on_score
from pipeline.compare.timeline import legend, tone, words


def across(night: Comparison, colours: dict[str, int]) -> str:
    """HTML of the summary of several experiments; the unit is the run."""
    settled, rungs, better = night.settled(), night.rungs(), night.improvement()
    count, fine = len(night.experiments), bool(night.experiments.script.all())
    ended = night.experiments[night.experiments.outcome == "healthy"]
    healthy = len(ended)
    above_random = sum(verdict_on_score(row)[1] == "good" for row in ended.itertuples())
    policies = "runs" if fine else "policies"
    scored = not fine or bool(np.isfinite(night.experiments.score).any())
    random = not fine or bool(np.isfinite(night.experiments.random).any())
    against = ""
    if night.experiments.random.notna().any():
        against = (
            f', <b class="{"good" if above_random == count else "wait"}">{above_random}</b> with a policy clearly '
            f"better than random; random policies score {plain_interval(*settled.loc['random', SCORE], fine=fine)}"
        )
    rows = "".join(
        f'<tr><td><a href="#{row.parent}">{escape(row.experiment)}, seed {row.seed}</a></td>'
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
        mean = plain_interval(*settled.loc["settled", SCORE], fine=fine)
        means = f" Settled {policies} score {mean} (interquartile means over experiments)."
        note = (
            '<p class="note" style="margin-top:14px">The unit is the run, not the episode. An attempt that failed '
            "counts with the score that it had reached. One run has no interval.</p>"
        )
    dots = [
        (f"settled {policies} ({settled.experiments['settled']})", *settled.loc["settled", SCORE], "settled"),
        (f"random policy ({settled.experiments['random']})", *settled.loc["random", SCORE], "c6"),
        *((f"{rung} ({each.attempts:.0f})", *each[SCORE], f"c{colours[rung]}") for rung, each in rungs.iterrows()),
    ]
    figure = charts.intervals(dots, "Score by rung: interquartile mean, 95 % interval over runs", "score")
    chance = [
        (f"{row.x} over {row.y}", row.probability, row.probability_low, row.probability_high, f"c{colours[row.x]}")
        for row in better[better.x.map(list(colours).index) > better.y.map(list(colours).index)].itertuples()
    ]
    chances = charts.intervals(chance, "Probability that one rung scores higher than another")
    if fine:
        first = [name for parent in night.experiments.parent for name in night.shown[parent].metrics[:2]]
        curves = [charts.metric_curves(night, night.attempts, name) for name in dict.fromkeys(first)]
    else:
        curves = [charts.score_curves(night, night.attempts, colours, "step")]
    drawn = "".join(f"<figure>{each}</figure>" for each in (figure, *curves, chances) if each)
    return (
        f"<header><h1>{escape(', '.join(dict.fromkeys(night.experiments.experiment)))}: {count} experiments</h1>"
        f'<p class="lead"><b class="{"good" if healthy == count else "wait"}">{healthy} of {count}</b> ended healthy'
        f"{against}.{means}</p></header>"
        "<section><div class='scroll'><table><tr><th>experiment</th><th>outcome</th><th>settled on</th>"
        f"<th class='n'>attempts</th><th class='n'>time</th>{headings}</tr>{rows}</table></div>{note}"
        f'{legend(night, night.attempts)}<div class="two">{drawn}</div></section>'
    )
