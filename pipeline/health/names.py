"""What the names of metrics tell: their words, and whether a metric should rise or fall."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise

LOSSES = (
    "loss", "losses", "*loss", "nll", "elbo", "perplexity", "ppl", "likelihood", "objective",
    "mse", "rmse", "mae", "error", "err", "bpc", "bpd", "kl", "entropy", "xent", "ce", "bce",
)  # fmt: skip
"""Words of what is minimised, and of what is computed beside it from the same outputs."""
GRADIENTS = ("grad", "grads", "gradient", "gradients", "gradnorm", "norm", "gnorm")
SCORES = (
    "score", "scores", "reward", "rewards", "rew", "return", "returns", "acc", "accuracy", "auc", "auroc", "f1",
    "bleu", "rouge", "success", "iou", "map", "ndcg", "r2",
)  # fmt: skip
"""Words of what should rise."""
_FALLING = ("loss", "losses", "*loss", "nll", "perplexity", "ppl", "mse", "rmse", "mae", "error", "err", "errors",
            "bpc", "bpd", "wer", "cer", "fid", "regret", "cost", "xent", "bce")  # fmt: skip
"""Words of what should fall."""
NO_LEVELS = ("std", "var", "variance", "min", "max", "low", "high", "scale", "coef", "weight", "lr", "rate", "time",
             "count", "num", "n", "length", "len", "best", "random", "target")  # fmt: skip
"""Words that say that a metric is not the level of what its other words name."""
RATES = ("lr", "lrs", "learningrate", "learning_rate")
NO_RATES = ("scale", "factor", "decay", "multiplier", "mult", "ratio", "min", "max", "final", "best", "target", "time")
"""Words that say that a metric is not a learning rate itself."""
_NOT_OF_TRAINING = ("system/", "random/", "best/", "cost/", "time/", "settled/")


@lru_cache(maxsize=4096)
def words(metric: str) -> tuple[str, ...]:
    """The words of a metric's name: `rollout/ep_rew_mean`, `trainLoss` → rollout, ep, rew, mean; train, loss."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", metric)
    return tuple(word.lower() for word in re.split(r"[^A-Za-z0-9]+", apart) if word)


def has_word(metric: str, patterns: Iterable[str]) -> bool:
    """Whether a word of the name matches a pattern, such as `*loss`, or two neighbours one such as `learning_rate`."""
    return _has_word(metric, tuple(patterns))


@lru_cache(maxsize=16384)
def _has_word(metric: str, patterns: tuple[str, ...]) -> bool:
    return any(_matches(metric, pattern) for pattern in patterns)


def _matches(metric: str, pattern: str) -> bool:
    told = words(metric)
    found = map("_".join, pairwise(told)) if "_" in pattern else iter(told)
    return any(fnmatchcase(each, pattern) for each in found)


def is_of_training(metric: str) -> bool:
    """Whether the training itself measures it while it learns."""
    return not metric.startswith(_NOT_OF_TRAINING)


def should_fall(metric: str) -> bool:
    """Whether the name is that of something to be minimised."""
    return has_word(metric, _FALLING)


def should_rise(metric: str) -> bool:
    """Whether the name is that of a score."""
    return has_word(metric, SCORES) and not should_fall(metric)
