"""Which of a script's metrics are shown: nobody has said so, but their names tell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain, zip_longest

from pipeline.health.names import GRADIENTS, LOSSES, NO_LEVELS, SCORES, has_word, is_of_training, words
from pipeline.health.readings import RANGES

MOST = 12
"""Metrics that are shown, at most."""
_FEWEST = 6
"""If the names tell of fewer, others are added."""
_OBJECTIVES = ("loss", "losses", "*loss", "nll", "elbo", "perplexity", "ppl", "objective")
_FALSE_LEVELS = tuple(word for word in NO_LEVELS if word not in ("lr", "rate"))
_PARTS = ("policy", "value", "vf", "actor", "critic", "pg", "td", "aux")
"""Words of the parts of a loss."""
_OF_A_KIND = 2
"""Learning rates and gradient norms that are shown: there may be one for each layer."""


def main_metrics(
    logged: Collection[str], named: Iterable[str] = (), found: Iterable[str] = (), most: int = MOST
) -> list[str]:
    """The metrics to show, in their order; at most so many.

    Args:
        logged: the names of all metrics.
        named: those that the user has named in `trainer.names`. They come first.
        found: those of rules that have fired or warned. They come next.
        most: then scores and losses by turns, with learning rate and gradient norm. If everything has room, the others
            follow; else as many of them that there are six in all.
    """
    candidates = sorted(filter(is_shown, logged), key=lambda name: (len(words(name)), name))
    chosen = [name for name in dict.fromkeys((*named, *found)) if name in logged]
    kinds: dict[str, list[str]] = {"score": [], "loss": [], "rate": [], "gradient": [], "other": []}
    for name in candidates:
        kinds[_kind(name)].append(name)
    in_turn = zip_longest(
        _best(kinds["score"]), _best(kinds["loss"]), kinds["rate"][:_OF_A_KIND], kinds["gradient"][:_OF_A_KIND]
    )
    chosen = list(dict.fromkeys((*chosen, *(name for name in chain.from_iterable(in_turn) if name is not None))))
    all_fit = len({*chosen, *candidates}) <= most
    room = most if all_fit else max(0, min(_FEWEST, most) - len(chosen))
    rest = [name for name in (*kinds["other"], *candidates) if name not in chosen]
    return list(dict.fromkeys((*chosen, *rest[:room])))[:most]


def is_shown(metric: str) -> bool:
    """Whether a metric is of the training, and has no place of its own as `progress` or the speed have."""
    return is_of_training(metric) and metric not in RANGES


def _kind(name: str) -> str:
    its_words = words(name)
    if has_word(name, GRADIENTS):
        return "gradient"
    if "lr" in its_words or {"learning", "rate"} <= {*its_words}:
        return "rate"
    if has_word(name, SCORES):
        return "score"
    return "loss" if has_word(name, LOSSES) else "other"


def _best(names: Sequence[str]) -> list[str]:
    """Levels before spreads and bounds of them, and the whole that is minimised before its parts."""
    return sorted(
        names,
        key=lambda name: (
            has_word(name, _FALSE_LEVELS),
            has_word(name, LOSSES) and not has_word(name, _OBJECTIVES),
            has_word(name, LOSSES) and has_word(name, _PARTS),
            len(words(name)),
            name,
        ),
    )
