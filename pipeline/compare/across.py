"""The summary of several experiments; the unit is the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline.compare import charts
from pipeline.compare.frames import Comparison
from pipeline.compare.scores import SCORE, plain_interval, verdict_on_score
from pipeline.compare.statistics import method
from pipeline.compare.target import NOT_REACHED, by_rung, to_score, to_target
from pipeline.compare.template import fill
from pipeline.compare.timeline import legend

_ALPHA, _EVEN = 0.05, 0.5
MIXED = "both configurations are counted together here; they stand side by side below"


def across(night: Comparison, colours: dict[str, int], *, mixed: bool = False) -> Markup:
    """HTML of the summary of several experiments; the unit is the run. `mixed`: they are of two configurations."""
    settled, rungs, better = night.settled(), night.rungs(), night.improvement()
    fine = bool(night.experiments.script.all())
    ended = night.experiments[night.experiments.outcome == "healthy"]
    policies = "runs" if fine else "policies"
    dots = [
        (f"settled {policies} ({settled.experiments['settled']})", *settled.loc["settled", SCORE], "settled"),
        (f"random policy ({settled.experiments['random']})", *settled.loc["random", SCORE], "c6"),
        *((f"{rung} ({each.to_the_end:.0f})", *each[SCORE], f"c{colours[rung]}") for rung, each in rungs.iterrows()),
    ]
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
    if fine:
        first = [name for parent in night.experiments.parent for name in night.shown[parent].metrics[:2]]
        curves = [charts.metric_curves(night, night.attempts, name) for name in dict.fromkeys(first)]
    else:
        curves = [charts.score_curves(night, night.attempts, colours, "step")]
    by_score = charts.intervals(dots, f"Score by rung: {night.statistic}, 95 % interval", "score")
    chances = charts.intervals(chance, "Probability that one rung scores higher than another", said="{:.2f}".format)
    return fill(
        "across.html.j2",
        night=night,
        names=list(dict.fromkeys(night.experiments.experiment)),
        ended=len(ended),
        compared=int((night.experiments.outcome == "compared").sum()),
        above_random=sum(verdict_on_score(row)[1] == "good" for row in ended.itertuples()),
        policies=policies,
        settles=bool((night.experiments.outcome != "compared").any()),
        scored=not fine or bool(np.isfinite(night.experiments.score).any()),
        random=not fine or bool(np.isfinite(night.experiments.random).any()),
        against_random=bool(night.experiments.random.notna().any()),
        method=method(night.statistic),
        random_score=_score(settled.loc["random"], fine=fine),
        settled_score=_score(settled.loc["settled"], fine=fine),
        scores={row.parent: _score(row, fine=fine) for row in night.experiments.itertuples()},
        randoms={
            row.parent: plain_interval(row.random, row.random_low, row.random_high, fine=fine)
            for row in night.experiments.itertuples()
        },
        mixed=MIXED if mixed else "",
        of_comparisons=of_comparisons(better) if chances else "",
        target=_target(night),
        legend=legend(night, night.attempts),
        charts=[each for each in (by_score, *curves, chances, charts.profiles(night, colours)) if each],
        cut_short=[(row, _score(row, fine=fine)) for row in night.cut_short().itertuples()],
    )


def _score(row: Any, *, fine: bool) -> str:
    return plain_interval(row.score, row.score_low, row.score_high, fine=fine)


def of_comparisons(better: pd.DataFrame) -> str:
    """How the probabilities of `Comparison.improvement` are to be read: how many there are, and of what."""
    count = len(better) // 2
    paired = int((better.seeds > 0).sum()) // 2
    how = "seed by seed" if paired == count else "not seed by seed" if not paired else f"{paired} of them seed by seed"
    many = f"{count} comparison{'s' * (count != 1)}, {how}"
    if count > 1:
        differ = f"these differ at 5 %: {_different(better)}"
        many += f"; corrected for their number (Holm), {differ}. The intervals are not widened"
    if paired < count:
        many += ". Rungs without a seed in common were trained on different seeds, and may differ for that reason"
    return f"{many}."


def _different(better: pd.DataFrame) -> str:
    """The pairs of rungs whose scores differ after the correction, the better one first; `none`."""
    found = better[(better.p_holm < _ALPHA) & (better.probability > _EVEN)]
    pairs, least = len(better) // 2, 2 / 2 ** better.seeds.max()  # one better with each seed, of all exchanges
    if found.empty and (better.seeds > 0).all() and pairs * least >= _ALPHA:
        return "none, and with so few seeds none can"
    return ", ".join(f"{row.x} over {row.y}" for row in found.itertuples()) or "none"


def _target(night: Comparison) -> dict[str, Any] | None:
    """What it took each rung to get to a score; None where no attempt has a running score."""
    rungs = by_rung(night, night.target)
    if rungs.empty:
        return None
    score = to_score(to_target(night, night.target).target.iloc[0])
    found = [(rung, each, bool(np.isfinite(each.steps))) for rung, each in rungs.iterrows()]
    return {"score": score, "rungs": found, "not_reached": NOT_REACHED}


def _of_seeds(shared: int) -> str:
    return f"{shared} seed{'s' * (shared != 1)}" if shared else "other seeds"
