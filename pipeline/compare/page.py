"""The comparison as one HTML file that needs no network, for screens in light and dark mode, phones and paper."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from pipeline.compare import charts
from pipeline.compare.cards import attempt_cards
from pipeline.compare.frames import Comparison
from pipeline.compare.style import STYLE
from pipeline.compare.timeline import timeline, tone, words
from pipeline.health.readings import written


def render(night: Comparison, moments: Mapping[str, str] | None = None) -> str:
    """The page, as HTML.

    Args:
        night: the experiments to compare.
        moments: the attempt's run id → HTML to show with a settled policy: what it attends to.
    """
    colours = charts.colours_of(night)
    names = list(dict.fromkeys(night.experiments.experiment))
    title = ", ".join(names)
    parts = [_across(night, colours)] if len(night.experiments) > 1 else []
    for row in night.experiments.itertuples():
        parts.append(_experiment(night, row, colours, moments or {}, several=len(night.experiments) > 1))
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} – comparison</title><style>{STYLE}</style></head><body><main>"
        f"{''.join(parts)}<footer>Made by <code>ladder compare</code> on {made}. Scores are the game's own; "
        "brackets are 95 % intervals.</footer></main></body></html>\n"
    )


def verdict_on_score(row: Any) -> tuple[str, str]:
    """Whether a settled policy is better than random play under the same step cap: a sentence and its CSS class.

    `row`: an experiment's row of `Comparison.experiments`.
    """
    if not np.isfinite(row.score):
        return "There is no score", "wait"
    if not np.isfinite(row.random):
        return "There is no random baseline to compare it with", "wait"
    if row.score_low > row.random_high:
        return "Its policy is clearly better than random play", "good"
    if row.score_high < row.random_low:
        return "Its policy is worse than random play", "bad"
    return "Its policy is not clearly better than random play", "wait"


def plain_interval(value: float, low: float, high: float) -> str:
    """A value with its interval in words: `10.1 [5.7, 16.6]`."""
    if not np.isfinite(value):
        return "–"
    return written(value) + (f" [{written(low)}, {written(high)}]" if np.isfinite(low) else "")


def _experiment(
    night: Comparison, row: Any, colours: dict[str, int], moments: Mapping[str, str], *, several: bool
) -> str:
    attempts = night.attempts[night.attempts.parent == row.parent]
    heading = f"{row.experiment}, seed {row.seed}" if several else row.experiment
    tag = "h2" if several else "h1"
    head = (
        f'<header id="{row.parent}"><{tag}>{escape(heading)}</{tag}><div class="eyebrow">'
        f"{row.started:%Y-%m-%d %H:%M} UTC · seed {row.seed} · parent run <code>{row.parent}</code></div>"
        f"{_lead(row, attempts)}{_facts(row, attempts)}</header>"
    )
    if attempts.empty:
        return head
    curves = [charts.score_curves(night, attempts, colours, over) for over in ("step", "minutes")]
    drawn = "".join(f"<figure>{each}</figure>" for each in curves if each)
    score = (
        f'<section><h2>Score</h2><p class="note">Mean over the last episodes of each attempt, the game\'s own score. '
        f"A cross: stopped as failed. Grey: a random policy under the same step cap, with its 95 % interval.</p>"
        f'{_legend(attempts, colours)}<div class="two">{drawn}</div></section>'
        if drawn
        else ""
    )
    moment = moments.get(str(row.settled_run), "")
    return (
        f"{head}<section><h2>The ladder</h2>{timeline(night, attempts, colours)}"
        '<p class="note">Hatched: from the first sign of the failure until it was certain. Dotted: the checkpoint from '
        "which the next attempt went on.</p></section>"
        f"{score}{moment}<section><h2>Attempts</h2>"
        '<p class="note">Green: where a metric is normal, as it applies at that step. Dashed red: from where it is '
        "abnormal. Red strip: the window that gave the verdict. Routing by situation: mean weight of each expert in "
        f"such moments, and their share of all.</p>{attempt_cards(night, attempts)}</section>{_costs(night, attempts)}"
    )


def _lead(row: Any, attempts: pd.DataFrame) -> str:
    count = f"{len(attempts)} attempt{'s' * (len(attempts) != 1)}"
    failed = [f"{each.rung} ({words(each.verdict)})" for each in attempts.itertuples() if each.verdict != "healthy"]
    after = f" Before it: {', '.join(failed)}." if failed and row.outcome == "healthy" else ""
    if row.outcome == "healthy":
        quality, kind = verdict_on_score(row)
        text = (
            f"The ladder settled on <b>{escape(str(row.settled_rung))}</b> after {count}. "
            f'<b class="{kind}">{quality}</b>.{escape(after)}'
        )
    elif row.outcome == "exhausted":
        text = f'<b class="bad">No rung held</b>: {count}, and all failed. {escape(", ".join(failed))}.'
    else:
        text = f'<b class="{tone(row.outcome)}">{escape(words(row.outcome).capitalize())}</b> after {count}.'
    return f'<p class="lead">{text}</p>'


def _facts(row: Any, attempts: pd.DataFrame) -> str:
    failed = attempts[~attempts.verdict.isin(["healthy", "running"])].minutes.sum()
    facts = [
        ("outcome", f'<span class="{tone(row.outcome)}">{escape(words(row.outcome))}</span>',
         f"on {escape(str(row.settled_rung))}" if row.outcome == "healthy" else ""),
        ("score", plain_interval(row.score, np.nan, np.nan), _bracket(row.score_low, row.score_high)),
        ("random policy", plain_interval(row.random, np.nan, np.nan), _bracket(row.random_low, row.random_high)),
        ("cost", f"{row.minutes:.1f} min", f"{failed:.1f} min of it in attempts that failed"),
    ]  # fmt: skip
    if row.settled_run:
        facts.append(
            ("policy to take", f"<code>{row.settled_run[:8]}</code>", escape(row.model or "checkpoints in its folder"))
        )
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>" for name, value, more in facts)
    return f'<dl class="facts">{cells}</dl>'


def _bracket(low: float, high: float) -> str:
    return f"95 % interval {written(low)} – {written(high)}" if np.isfinite(low) else ""


def _legend(attempts: pd.DataFrame, colours: dict[str, int]) -> str:
    items = "".join(
        f'<li><span class="swatch" style="background:var(--c{colours[rung]})"></span>{escape(rung)}</li>'
        for rung in dict.fromkeys(attempts.rung)
    )
    return f'<ul class="legend">{items}</ul>'


_SPENT = (("time/collect", "playing", "c0"), ("time/update", "learning", "c2"), ("time/report", "logging", "c6"))


def _costs(night: Comparison, attempts: pd.DataFrame) -> str:
    rows = []
    for row in attempts.itertuples():
        seconds = [night.history(row.run_id, name).value.sum() / 60 for name, _, _ in _SPENT]
        other = max(0.0, row.minutes - sum(seconds))
        whole = max(1e-9, sum(seconds) + other)
        parts = "".join(
            f'<span style="width:{100 * each / whole:.1f}%;background:var(--{colour})" '
            f'title="{name}: {each:.2f} min"></span>'
            for each, (_, name, colour) in zip(seconds, _SPENT, strict=True)
        )
        speed = "–" if not np.isfinite(row.steps_per_second) else f"{row.steps_per_second:,.0f}"
        memory = "–" if not np.isfinite(row.memory_mb) else f"{row.memory_mb / 1024:.2f} GB"
        rows.append(
            f"<tr><td>{row.attempt} {escape(row.rung)}</td><td class='n'>{row.minutes:.1f} min</td>"
            f"<td class='n'>{row.episodes:,}</td><td class='n'>{row.trained_steps:,}</td><td class='n'>{speed}</td>"
            f"<td class='n'>{memory}</td><td class='n'>{plain_interval(row.score, row.score_low, row.score_high)}</td>"
            f'<td><div class="parts" style="background:var(--rule)">{parts}</div></td></tr>'
        )
    total = (
        f"<tr class='total'><td>together</td><td class='n'>{attempts.minutes.sum():.1f} min</td><td></td>"
        f"<td class='n'>{attempts.trained_steps.sum():,}</td><td></td><td></td><td></td><td></td></tr>"
    )
    legend = "".join(
        f'<li><span class="swatch" style="background:var(--{colour})"></span>{name}</li>' for _, name, colour in _SPENT
    )
    return (
        "<section><h2>Costs</h2><div class='scroll'><table><tr><th>attempt</th><th class='n'>time</th>"
        "<th class='n'>to episode</th><th class='n'>steps trained</th><th class='n'>steps/s</th>"
        "<th class='n'>memory</th><th class='n'>score at the end</th><th>time spent</th></tr>"
        f"{''.join(rows)}{total}</table></div>"
        f'<ul class="legend soft">{legend}<li><span class="swatch" style="background:var(--rule)"></span>'
        "starting, watching, the random baseline</li></ul></section>"
    )


def _across(night: Comparison, colours: dict[str, int]) -> str:
    """HTML of the summary of several experiments; the unit is the run."""
    settled, rungs, better = night.settled(), night.rungs(), night.improvement()
    count = len(night.experiments)
    ended = night.experiments[night.experiments.outcome == "healthy"]
    healthy = len(ended)
    above_random = sum(verdict_on_score(row)[1] == "good" for row in ended.itertuples())
    against = ""
    if night.experiments.random.notna().any():
        against = (
            f', <b class="{"good" if above_random == count else "wait"}">{above_random}</b> with a policy clearly '
            f"better than random; random policies score {plain_interval(*settled.loc['random', _SCORE])}"
        )
    rows = "".join(
        f'<tr><td><a href="#{row.parent}">{escape(row.experiment)}, seed {row.seed}</a></td>'
        f'<td class="{tone(row.outcome)}">{escape(words(row.outcome))}</td>'
        f"<td>{escape(str(row.settled_rung or '–'))}</td>"
        f"<td class='n'>{row.attempts}</td><td class='n'>{row.minutes:.1f} min</td>"
        f"<td class='n'>{plain_interval(row.score, row.score_low, row.score_high)}</td>"
        f"<td class='n'>{plain_interval(row.random, row.random_low, row.random_high)}</td></tr>"
        for row in night.experiments.itertuples()
    )
    dots = [
        (f"settled policies ({settled.experiments['settled']})", *settled.loc["settled", _SCORE], "settled"),
        (f"random policy ({settled.experiments['random']})", *settled.loc["random", _SCORE], "c6"),
        *((f"{rung} ({each.attempts:.0f})", *each[_SCORE], f"c{colours[rung]}") for rung, each in rungs.iterrows()),
    ]
    figure = charts.intervals(dots, "Score by rung: interquartile mean, 95 % interval over runs", "score")
    chance = [
        (f"{row.x} over {row.y}", row.probability, row.probability_low, row.probability_high, f"c{colours[row.x]}")
        for row in better[better.x.map(list(colours).index) > better.y.map(list(colours).index)].itertuples()
    ]
    chances = charts.intervals(chance, "Probability that one rung scores higher than another")
    curves = charts.score_curves(night, night.attempts, colours, "step") or ""
    drawn = "".join(f"<figure>{each}</figure>" for each in (figure, curves, chances) if each)
    return (
        f"<header><h1>{escape(', '.join(dict.fromkeys(night.experiments.experiment)))}: {count} experiments</h1>"
        f'<p class="lead"><b class="{"good" if healthy == count else "wait"}">{healthy} of {count}</b> ended healthy'
        f"{against}. Settled policies score {plain_interval(*settled.loc['settled', _SCORE])} (interquartile means "
        "over experiments).</p></header>"
        "<section><div class='scroll'><table><tr><th>experiment</th><th>outcome</th><th>settled on</th>"
        f"<th class='n'>attempts</th><th class='n'>time</th><th class='n'>score</th><th class='n'>random</th></tr>"
        f'{rows}</table></div><p class="note" style="margin-top:14px">The unit is the run, not the episode. An attempt '
        "that failed counts with the score that it had reached. One run has no interval.</p>"
        f'{_legend(night.attempts, colours)}<div class="two">{drawn}</div></section>'
    )


_SCORE = ["score", "score_low", "score_high"]
