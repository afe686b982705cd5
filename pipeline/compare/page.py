"""The comparison as one HTML file that needs no network, for screens in light and dark mode, phones and paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.compare import charts
from pipeline.compare.across import across
from pipeline.compare.cards import attempt_cards
from pipeline.compare.costs import costs
from pipeline.compare.frames import Comparison
from pipeline.compare.live import RELOADS, note
from pipeline.compare.scores import plain_interval, verdict_on_score
from pipeline.compare.script import SCRIPT
from pipeline.compare.sides import section, sides
from pipeline.compare.style import STYLE, hides
from pipeline.compare.svg import number
from pipeline.compare.timeline import legend, timeline, tone, words
from pipeline.health.readings import written

_MOST_NAMES = 100
"""Names of metrics that are listed."""


def render(night: Comparison, moments: Mapping[str, str] | None = None, running: str | None = None) -> str:
    """The page, as HTML.

    Args:
        night: the experiments to compare.
        moments: the attempt's run id → HTML to show with a settled policy: what it attends to.
        running: parent run of the experiment that runs, and whose page is written again and again.
    """
    colours = charts.colours_of(night)
    names = list(dict.fromkeys(night.experiments.experiment))
    title = ", ".join(names)
    both = sides(night)
    parts = [across(night, colours, mixed=both is not None)] if len(night.experiments) > 1 else []
    if both is not None:
        parts.append(section(both, night.called))
    for row in night.experiments.itertuples():
        parts.append(_experiment(night, row, colours, moments or {}, several=len(night.experiments) > 1))
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    live = "" if running is None else note(running, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))
    kinds = [f"a{number}" for number in sorted({*night.attempts.attempt})] + [
        f"r{index}" for index in range(len(colours))
    ]
    style = STYLE + hides(kinds)
    whose = "" if night.experiments.script.any() else "Scores are the game's own; "
    whose += "brackets are 95 % intervals." if whose else "Brackets are 95 % intervals."
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{RELOADS if live else ''}<title>{escape(title)} – comparison</title><style>{style}</style></head><body><main>"
        f"{live}{''.join(parts)}<footer>Made by <code>ladder compare</code> on {made}. {whose}</footer>"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


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
    ladder = (
        f"{head}<section><h2>The ladder</h2>{timeline(night, attempts, colours)}"
        '<p class="note">Hatched: from the first sign of the failure until it was certain. Dotted: the checkpoint from '
        "which the next attempt went on.</p></section>"
    )
    if row.script:
        rest = _metrics(night, row.parent, attempts, colours) + _script_cards(night, row.parent, attempts)
    else:
        rest = _score(night, attempts, colours) + moments.get(str(row.settled_run), "") + _cards(night, attempts)
    return f"{ladder}{rest}{costs(night, attempts, script=row.script)}"


def _score(night: Comparison, attempts: pd.DataFrame, colours: dict[str, int]) -> str:
    """HTML of the score of this project's trainer."""
    curves = [charts.score_curves(night, attempts, colours, over) for over in ("step", "minutes")]
    drawn = "".join(f"<figure>{each}</figure>" for each in curves if each)
    return (
        f'<section><h2>Score</h2><p class="note">Mean over the last episodes of each attempt, the game\'s own score. '
        f"{charts.ENDS} Grey: a random policy under the same step cap, with its 95 % interval.</p>"
        f'{legend(night, attempts)}<div class="two">{drawn}</div></section>'
        if drawn
        else ""
    )


def _metrics(night: Comparison, parent: str, attempts: pd.DataFrame, colours: dict[str, int]) -> str:
    """HTML of a script's main metrics, and the names of the rest. Empty: it has logged none."""
    shown, figures, never = night.shown[parent], [], []
    for metric in shown.metrics:
        chart = charts.metric_curves(night, attempts, metric, shown.names.get(metric))
        figures += [f"<figure>{chart}</figure>"] if chart else []
        never += [] if chart else [metric]
    odd = len(night.not_finite[night.not_finite.run_id.isin(attempts.run_id)]) > 0
    marks = " Red on the edge: NaN or infinite there." if odd and figures else ""
    note = f'<p class="note">{charts.ENDS}{marks}</p>' if figures else ""
    told = f'<p class="note">Without a finite value: {_names(never)}.</p>' if never else ""
    if shown.others:
        told += (
            f'<details class="note"><summary>{len(shown.others)} more metrics in MLflow</summary>'
            f"{_names(shown.others)}</details>"
        )
    if not figures and not told:
        return ""
    drawn = f'{legend(night, attempts)}<div class="two some">{"".join(figures)}</div>' if figures else ""
    return f"<section><h2>Metrics</h2>{note}{drawn}{told}</section>"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"<code>{escape(name)}</code>" for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else "")


def _cards(night: Comparison, attempts: pd.DataFrame) -> str:
    return (
        '<section><h2>Attempts</h2><p class="note">Green: where a metric is normal, as it applies at that step. '
        "Dashed red: from where it is abnormal. Red strip: the window that gave the verdict. Routing by situation: "
        "mean weight of each expert in such moments, and their share of all.</p>"
        f"{attempt_cards(night, attempts)}</section>"
    )


def _script_cards(night: Comparison, parent: str, attempts: pd.DataFrame) -> str:
    cards = attempt_cards(night, attempts, charts.MONITORED if night.shown[parent].bands else ())
    note = (
        '<p class="note">Red strip: the window that gave the verdict. Dashed red: the threshold.</p>'
        if 'class="failing"' in cards
        else ""
    )
    return f"<section><h2>Attempts</h2>{note}{cards}</section>"


def _lead(row: Any, attempts: pd.DataFrame) -> str:
    count = f"{len(attempts)} attempt{'s' * (len(attempts) != 1)}"
    failed = [f"{each.rung} ({words(each.verdict)})" for each in attempts.itertuples() if each.verdict != "healthy"]
    after = f" Before it: {', '.join(failed)}." if failed and row.outcome == "healthy" else ""
    if row.outcome == "healthy":
        quality, kind = verdict_on_score(row)
        judged = "" if row.script and not np.isfinite(row.random) else f' <b class="{kind}">{quality}</b>.'
        text = f"The ladder settled on <b>{escape(str(row.settled_rung))}</b> after {count}.{judged}{escape(after)}"
    elif row.outcome == "compared":
        text = f"<b>{escape(row.reason[:1].upper() + row.reason[1:])}</b>, in {count}.{_best(row, attempts)}"
    elif row.outcome == "exhausted":
        text = f'<b class="bad">No rung held</b>: {count}, and all failed. {escape(", ".join(failed))}.'
    else:
        why = f" {escape(row.reason[0].upper() + row.reason[1:])}." if row.reason else ""
        text = f'<b class="{tone(row.outcome)}">{escape(words(row.outcome).capitalize())}</b> after {count}.{why}'
    return f'<p class="lead">{text}</p>'


def _best(row: Any, attempts: pd.DataFrame) -> str:
    """HTML of which rung scored best, of those that were trained to their end; empty: none has a score."""
    whole = attempts[attempts.to_the_end & attempts.score.notna()]
    if whole.empty:
        return ""
    best = whole.loc[whole.score.idxmax()]
    score = plain_interval(best.score, best.score_low, best.score_high, fine=bool(row.script))
    cut = len(attempts) - len(attempts[attempts.to_the_end])
    left = f" {cut} attempt{'s' * (cut != 1)} cut short count for no rung." if cut else ""
    return f" The best score has <b>{escape(best.rung)}</b>, {score}; one seed alone does not rank the rungs.{left}"


def _facts(row: Any, attempts: pd.DataFrame) -> str:
    failed = attempts[~attempts.verdict.isin(["healthy", "running"])].minutes.sum()
    facts = [
        ("outcome", f'<span class="{tone(row.outcome)}">{escape(words(row.outcome))}</span>',
         f"on {escape(str(row.settled_rung))}" if row.outcome == "healthy" else ""),
        ("score", plain_interval(row.score, np.nan, np.nan, fine=row.script),
         _bracket(row.score_low, row.score_high, fine=row.script)),
        ("random policy", plain_interval(row.random, np.nan, np.nan),
         _bracket(row.random_low, row.random_high, fine=False)),
        ("cost", f"{row.minutes:.1f} min", f"{failed:.1f} min of it in attempts that failed"),
    ]  # fmt: skip
    if row.script:
        facts = [each for each in facts if each[1] != "–"]
        facts += _reached(attempts)
    if row.settled_run:
        run = f"<code>{row.settled_run[:8]}</code>"
        if row.script:
            kept = attempts.set_index("run_id").checkpoint[row.settled_run]
            where = f"checkpoint {Path(kept).name}" if isinstance(kept, str) else "it has left no checkpoint"
            facts.append(("run to take", run, escape(row.model or where)))
        else:
            facts.append(("policy to take", run, escape(row.model or "checkpoints in its folder")))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>" for name, value, more in facts)
    return f'<dl class="facts">{cells}</dl>'


def _reached(attempts: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The fact of how many steps a script has trained; none where it counts no steps."""
    steps = int(attempts.trained_steps.sum())
    return [("steps trained", f"{steps:,}", f"the last attempt to step {attempts.steps.iloc[-1]:,}")] if steps else []


def _bracket(low: float, high: float, *, fine: bool) -> str:
    said = number if fine else written
    return f"95 % interval {said(low)} – {said(high)}" if np.isfinite(low) else ""
