"""The definition of every logged metric: formula, unit, source, healthy values, and what a bad value means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """One metric. `name` may end in `/…` for a family, such as one value for each expert."""

    name: str
    formula: str
    unit: str
    source: str
    healthy: str
    """The middle 90 % of the updates of recorded healthy V3 runs of 300 k steps and more."""
    bad: str = ""
    """What a bad value looks like, and what to do; empty: the metric only informs."""

    def covers(self, metric: str) -> bool:
        """Whether this defines the metric that is logged under this name."""
        return metric.startswith(self.name[:-1]) if self.name.endswith("/…") else metric == self.name


_BRIEF, _PPO = "the brief", "Schulman et al. 2017"

DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        "alpha_entropy",
        "mean over samples of H(α(s)) = −Σₑ αₑ ln αₑ",
        "nats",
        _BRIEF,
        "1.3 – 1.39 (ln 4) in warm-up, 0.65 – 1.1 in fine-tune",
        "Low with an uneven load: collapse. Low with an even load: specialisation, the goal.",
    ),
    Definition(
        "alpha_entropy_ratio",
        "alpha_entropy / ln E",
        "share of the maximum",
        _BRIEF,
        "0.94 – 1 in warm-up, 0.47 – 0.80 in fine-tune",
    ),
    Definition("load_entropy_ratio", "H(ᾱ) / ln E, ᾱ the batch mean of α", "share of the maximum", _BRIEF, "0.95 – 1"),
    Definition(
        "specialisation",
        "load_entropy_ratio − alpha_entropy_ratio",
        "share of ln E; mutual information of state and expert",
        "Jensen's inequality: never negative",
        "0 – 0.06 in warm-up, 0.19 – 0.51 in fine-tune",
        "Stays at 0 past warm-up: the router does not decide. A smaller α-entropy coefficient, a lower temperature.",
    ),
    Definition(
        "support_size",
        "mean number of experts with α > 0",
        "experts",
        "Martins & Astudillo 2016",
        "4 in warm-up, 2.4 – 3.5 in fine-tune",
    ),
    Definition("expert_usage/…", "ᾱ of one expert", "share of samples", _BRIEF, "0.13 – 0.35 of four experts"),
    Definition(
        "routing/…",
        "ᾱ of one expert over the samples of one situation: hit points low, a monster adjacent, new map seen, else; "
        "every tenth update",
        "share of samples",
        "the names of the experts",
        "Survival above its share where hit points are low, once the router decides",
    ),
    Definition(
        "situation/…",
        "moments with hit points low (below a third), a monster adjacent, new map seen, or none of these; "
        "every tenth update",
        "share of samples",
        "–",
        "–",
    ),
    Definition("expert_usage_max", "maxₑ ᾱₑ", "share of samples", _BRIEF, "0.26 – 0.38"),
    Definition(
        "expert_usage_min",
        "minₑ ᾱₑ",
        "share of samples",
        _BRIEF,
        "0.12 – 0.24",
        "0 for a dozen updates: an expert has died. A larger α-entropy or load-balance coefficient; two experts.",
    ),
    Definition(
        "expert_usage_excess",
        "(maxₑ ᾱₑ − 1/E) / (1 − 1/E)",
        "0 even, 1 one expert alone; the same for any E",
        _BRIEF,
        "0.01 – 0.18",
        "Above 0.73 (80 % of four): one expert takes all. Longer warm-up, a higher final temperature, softmax only.",
    ),
    Definition(
        "router_logit_norm", "mean of ‖router logits‖₂", "logits", "–", "0.18 – 0.66", "Tens: the router saturates."
    ),
    Definition(
        "gradient_norm",
        "global ‖∇‖₂ before clipping, mean over the update's minibatches",
        "depends on the reward's scale",
        "Pascanu et al. 2013",
        "0.5 – 5, up to 8 late in a sparse run",
        "Far above the run's own median for several updates: a smaller learning rate, LayerNorm, clipping.",
    ),
    Definition("gradient_norm_max", "the largest of the update's minibatches", "as gradient_norm", "–", "0.8 – 10"),
    Definition("gradient_clipped_share", "minibatches whose norm exceeds max_grad_norm", "share", _BRIEF, "0 – 1"),
    Definition(
        "gat_attention_variance",
        "(d·Σⱼa²ᵢⱼ − 1)/(d − 1) over the d ≥ 2 edges of a node; mean over nodes, heads and layers",
        "0 uniform, 1 all on one edge",
        "the brief, normalised by the degree",
        "0.06 – 0.27",
        "At either end together with a high gat_smoothing: over-smoothing. Alone it says little.",
    ),
    Definition("gat_attention_variance/…", "gat_attention_variance of one layer", "0 – 1", _BRIEF, "0.01 – 0.44"),
    Definition(
        "gat_attention_variance_raw",
        "Σⱼa²ᵢⱼ/d − 1/d²",
        "at most (d − 1)/d²",
        _BRIEF,
        "0.01 – 0.04; the brief's bound of 0.05 flags nearly all healthy updates",
    ),
    Definition(
        "gat_smoothing",
        "mean cosine similarity of the features of nodes that share an edge, after the last layer",
        "−1 – 1",
        "Li et al. 2018; Chen et al. 2020 (MAD)",
        "0.35 – 0.71, never above 0.78",
        "Above 0.9: all nodes look alike. At most two layers, residual connections, a smaller rate for the encoder.",
    ),
    Definition("temperature", "mean divisor of the router's logits", "–", _BRIEF, "1, then 1 → 0.5"),
    Definition("sparse_share", "samples routed by sparsemax", "share", "–", "0, then 1"),
    Definition("phase", "phase of most samples", "0 warm-up, 1 transition, 2 fine-tune", _BRIEF, "–"),
    Definition(
        "nonfinite_batches",
        "minibatches of the update whose loss or gradient was NaN or Inf; they are skipped",
        "minibatches",
        _BRIEF,
        "0",
        "Above 0 in most updates: something makes NaN steadily. A smaller learning rate; look at the observation.",
    ),
    Definition(
        "rollbacks",
        "returns to the last finite state since the attempt began, less one for every 50 clean updates after the last",
        "count",
        _BRIEF,
        "0",
        "More than three: numerical instability. Each one halves the learning rate for 20 updates.",
    ),
    Definition("nonfinite_rewards", "rewards that were NaN or Inf, taken as 0", "count", "–", "0"),
    Definition("nonfinite_metrics", "metrics left out of this report for being NaN or Inf", "count", "–", "not logged"),
    Definition(
        "reward_std",
        "standard deviation of the shaped reward over the rollout, before normalisation",
        "shaped reward",
        "–",
        "0.05 – 0.22",
        "0: nothing is rewarded. Reward shaping.",
    ),
    Definition(
        "approx_kl",
        "mean of (r − 1) − ln r, r = π/π_old",
        "nats",
        "Schulman 2020, “Approximating KL divergence”",
        "1e-4 – 0.018",
        "0: nothing is learnt. Near 1: the policy jumps; a smaller learning rate.",
    ),
    Definition("clip_fraction", "samples with |r − 1| > clip_ratio", "share", _PPO, "0 – 0.31"),
    Definition("first_ratio_deviation", "max |r − 1| on the first minibatch", "–", _PPO, "0", "Above 1e-5: a bug."),
    Definition(
        "entropy",
        "mean entropy of the policy over actions",
        "nats; at most ln(actions offered), 3.14 for 23",
        _PPO,
        "3.0 falling to 1.6",
        "Near 0: one action for ever. A higher entropy coefficient.",
    ),
    Definition(
        "explained_variance",
        "1 − Var(return − value) / Var(return)",
        "≤ 1",
        "OpenAI Baselines",
        "0.1 – 0.76",
        "Negative for long: the critic learns nothing.",
    ),
    Definition("loss/…", "terms of the loss, before their coefficients", "–", "the brief, “Losses”", "–"),
    Definition("learning_rate", "rate of the last optimiser step, before any part's own factor", "–", _BRIEF, "–"),
    Definition("score", "mean of the game's own score over the episodes that ended", "points", "NLE blstats[9]", "–"),
    Definition(
        "score_window",
        "mean score of the last `training.score_window` episodes",
        "points",
        "–",
        "above random/score_high after some hundred thousand steps",
        "Flat for long: reward shaping, more exploration.",
    ),
    Definition("best/…", "the best so far", "as the metric", "–", "–"),
    Definition(
        "random/…",
        "score of a policy that draws uniformly from what is offered, under the same step cap, with its 95 % interval",
        "points",
        "–",
        "–",
    ),
    Definition(
        "episode/task_return", "mean undiscounted return of the environment's own reward", "reward", "Gymnasium", "–"
    ),
    Definition("episode/length", "mean length of the episodes that ended", "environment steps", "–", "–"),
    Definition(
        "episode/depth", "mean of the deepest dungeon level of each episode", "levels", "NLE blstats[12]", "1 – 2"
    ),
    Definition("episode/death_share", "episodes that ended in death, not at the cap", "share", "–", "0 – 1"),
    Definition("episodes", "episodes that have ended since the run began", "count", "–", "–"),
    Definition("progress", "how much of the run is done, by episodes or by steps", "share", "–", "–"),
    Definition("update", "PPO updates since the run began", "count", "–", "–"),
    Definition("optimiser_steps", "minibatches that changed the weights", "count", "–", "–"),
    Definition("steps_per_second", "environment steps per second, learning and logging included", "1/s", "–", "–"),
    Definition("memory_mb", "resident memory of the trainer and its children", "MB", "–", "flat"),
    Definition("time/…", "wall clock of a part of the update", "s", "–", "–"),
    Definition(
        "cost/…",
        "what an attempt has taken, in the unit that the name gives, without a cluster's queue and without what its "
        "checkpoint brought; logged at its end, and on the parent as the sum over attempts",
        "s, min, steps",
        "–",
        "–",
    ),
    Definition("attempts", "attempts of the experiment; logged on its parent run", "count", "–", "–"),
    Definition(
        "settled/…",
        "metrics of the attempt on which the ladder settled; logged on the parent run",
        "as the metric",
        "–",
        "–",
    ),
)


def definition(metric: str) -> Definition | None:
    """The definition of the metric that is logged under this name; None: there is none."""
    return next((each for each in DEFINITIONS if each.covers(metric)), None)
