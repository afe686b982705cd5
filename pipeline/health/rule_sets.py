"""The two rule sets that ship, and the brief's bands for the four monitored metrics (usage has two: one a side)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.health.beside_random import BesideRandomRule
from pipeline.health.flat import FlatRule
from pipeline.health.generic import GENERIC
from pipeline.health.phase import Phase
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule import Rule
from pipeline.health.threshold import Condition, ThresholdRule

NAN: tuple[Rule, ...] = (
    ThresholdRule(
        name="rollbacks",
        verdict="numerical_instability",
        conditions=(Condition(metric="rollbacks", above=3),),
        meaning="Training has gone back to the last finite state more than three times. Each one halves the learning "
        "rate for a while, and 50 clean updates forgive one, so rare ones in a long run do not add up.",
    ),
    ThresholdRule(
        name="nonfinite_batches",
        verdict="numerical_instability",
        conditions=(Condition(metric="nonfinite_batches", above=0),),
        window=20,
        patience=16,
        meaning="Nearly every update has minibatches with a NaN or Inf. They are skipped, but they keep coming.",
    ),
)
"""Training skips what is not finite, and goes back to the last good state. These see where that is no cure."""

SEED: tuple[Rule, ...] = (
    ThresholdRule(
        name="alpha_entropy_low",
        verdict="expert_collapse",
        conditions=(Condition(metric="alpha_entropy", below=0.3),),
        meaning="The brief: α-entropy < 0.3. A sparse router that has specialised is there too.",
    ),
    ThresholdRule(
        name="alpha_entropy_high",
        verdict="router_indecision",
        conditions=(Condition(metric="alpha_entropy", above=1.2),),
        meaning="The brief: α-entropy > 1.2. Softmax warm-up sits at ln 4 = 1.386 by design.",
    ),
    ThresholdRule(
        name="expert_usage",
        verdict="expert_collapse",
        conditions=(Condition(metric="expert_usage_max", above=0.8),),
        meaning="The brief: one expert used > 80 %.",
    ),
    ThresholdRule(
        name="gat_attention_variance",
        verdict="gat_oversmoothing",
        conditions=(Condition(metric="gat_attention_variance_raw", below=0.05),),
        meaning="The brief: attention variance < 0.05. Nodes of degree 19 and more are always below.",
    ),
    ThresholdRule(
        name="gradient_norm",
        verdict="gradient_explosion",
        conditions=(Condition(metric="gradient_norm", above=10.0),),
        meaning="The brief: gradient norm > 10.0.",
    ),
    *NAN,
    PlateauRule(
        name="reward_plateau",
        check_every=500,
        meaning="The brief: score unchanged for long. How long, and what counts as unchanged, are not in the brief.",
    ),
)

V3: tuple[Rule, ...] = (
    *NAN,
    ThresholdRule(
        name="gradient_jump",
        verdict="gradient_explosion",
        conditions=(Condition(metric="gradient_norm", above=10.0, above_median=5.0),),
        grace=10,
        window=5,
        patience=5,
        meaning="Norm before clipping, mean of the update's minibatches: five updates in a row above 10 and above five "
        "times the run's own median. The level depends on the reward's scale, so the bound follows the run.",
    ),
    ThresholdRule(
        name="gradient_outliers",
        verdict="gradient_explosion",
        conditions=(Condition(metric="gradient_norm", above=10.0, above_mad=3.0),),
        grace=10,
        window=5,
        patience=3,
        meaning="Three of five updates above 10 and more than 3 MAD above the run's own median, in logarithms. "
        "Healthy sparse routing reaches 6. A single spike is harmless: clipping takes care of it.",
    ),
    ThresholdRule(
        name="gradient_level",
        verdict="gradient_explosion",
        conditions=(Condition(metric="gradient_norm", above=100.0),),
        window=5,
        patience=2,
        meaning="Ten times above any healthy level, twice in five updates. This also sees a run that has no median of "
        "its own yet, and one whose weights saturate in the explosion, so that no gradient is left afterwards.",
    ),
    ThresholdRule(
        name="gradient_damage",
        verdict="gradient_explosion",
        conditions=(Condition(metric="gradient_norm", above=100.0), Condition(metric="approx_kl", above=0.5)),
        meaning="A single explosion that clipping did not hold: it changed the policy twenty times as much as a "
        "healthy update does. Afterwards the run looks calm, and its policy is ruined.",
    ),
    ThresholdRule(
        name="policy_jumps",
        verdict="gradient_explosion",
        conditions=(Condition(metric="approx_kl", above=0.1),),
        window=10,
        patience=5,
        meaning="Half of ten updates move the policy three times as far as any update of a healthy run does (0.036): "
        "the learning rate is far too high, whatever the gradient's norm. A smaller one, and clipping.",
    ),
    ThresholdRule(
        name="smoothing",
        verdict="gat_oversmoothing",
        conditions=(
            Condition(metric="gat_smoothing", above=0.9),
            Condition(metric="gat_attention_variance", outside=(0.05, 0.7)),
        ),
        grace=3,
        window=10,
        patience=8,
        meaning="Neighbours' features after the GAT are alike (mean cosine; at most 0.78 in healthy runs), and "
        "attention says why: uniform, or saturated on one edge. A healthy encoder begins with a low variance too.",
    ),
    ThresholdRule(
        name="identical_nodes",
        verdict="gat_oversmoothing",
        conditions=(Condition(metric="gat_smoothing", above=0.95),),
        grace=3,
        window=10,
        patience=8,
        meaning="All nodes alike, whatever attention does.",
    ),
    ThresholdRule(
        name="load",
        verdict="expert_collapse",
        conditions=(Condition(metric="expert_usage_excess", above=0.73),),
        grace=3,
        window=10,
        patience=8,
        meaning="(max ᾱ − 1/E) / (1 − 1/E): 0.73 is 80 % for four experts, 87 % for two. It is the load that "
        "collapses: low α-entropy under a balanced load is specialisation, the goal.",
    ),
    ThresholdRule(
        name="dead_expert",
        verdict="expert_collapse",
        conditions=(Condition(metric="expert_usage_min", below=0.001),),
        window=15,
        patience=10,
        meaning="One expert is hardly ever chosen any more. No update of a healthy run has been like that.",
    ),
    ThresholdRule(
        name="indecision",
        verdict="router_indecision",
        conditions=(
            Condition(metric="alpha_entropy_ratio", above=0.866),
            Condition(metric="sparse_share", above=0.5),
        ),
        phases=(Phase.FINETUNE,),
        window=50,
        patience=50,
        action="warn",
        meaning="Past warm-up α is still near uniform. It costs sparsity, not the policy: a warning.",
    ),
    ThresholdRule(
        name="no_reward",
        verdict="reward_plateau",
        conditions=(Condition(metric="reward_std", below=1e-6),),
        window=10,
        patience=10,
        meaning="Every action was rewarded alike in ten updates: there is nothing to learn from. Look at the shaping.",
    ),
    ThresholdRule(
        name="no_learning",
        verdict="reward_plateau",
        conditions=(Condition(metric="approx_kl", above=-1e-12, below=1e-12),),
        phases=(Phase.WARMUP, Phase.TRANSITION),
        window=10,
        patience=10,
        meaning="The updates do not change the policy at all, so the score cannot rise. A learning rate of 0, or "
        "weights so saturated that no gradient is left. Small changes can be healthy: 2e-9 with few steps an update.",
    ),
    ThresholdRule(
        name="stuck_policy",
        verdict="reward_plateau",
        conditions=(Condition(metric="entropy", below=0.2),),
        window=10,
        patience=10,
        meaning="The policy repeats one action (entropy in nats; 1.5 and more in healthy runs) and no longer explores. "
        "A higher entropy coefficient.",
    ),
    PlateauRule(
        name="reward_plateau",
        check_every=500,
        phases=(Phase.WARMUP, Phase.TRANSITION),
        meaning="The score has stopped rising: with 95 % confidence the gain over the last 1000 episodes is below a "
        "tenth of the mean. Reward shaping, a higher entropy coefficient, more exploration.",
    ),
    BesideRandomRule(
        name="not_above_random",
        margin=0.25,
        from_episode=2000,
        window_episodes=1000,
        wrong=0.01,
        spares_gains=True,
        meaning="After 2000 episodes and more the score is certainly less than a quarter above random play's, and no "
        "gain can be seen in it: nothing has been learnt. Reward shaping, a higher learning rate, a higher entropy "
        "coefficient. It takes a baseline of many games: `environment.random_episodes=1000`.",
    ),
    FlatRule(
        name="flat_score",
        phases=(Phase.WARMUP, Phase.TRANSITION),
        meaning="The score has stood still for 2000 episodes and more before fine-tune: over all looks of the run, "
        "99 % certain that it gains less than 15 % per 1000. Attempts that continue one another count together, and "
        "games in fine-tune still tell what the score had come to before it. A score that first stands still in "
        "fine-tune converges. Reward shaping, a higher entropy coefficient, more exploration.",
    ),
    PlateauRule(
        name="late_plateau",
        check_every=500,
        phases=(Phase.FINETUNE,),
        action="warn",
        meaning="A standstill that begins in fine-tune, where the learning rate is a tenth and less, is how a run "
        "converges, and no failure.",
    ),
    BesideRandomRule(
        name="as_random",
        margin=0.5,
        action="warn",
        meaning="After 1000 episodes and more the score is certainly less than half as much again as random play's; "
        "recorded healthy runs have twice and more. It may still learn: a warning. Reward shaping, a higher learning "
        "rate. With more games for the baseline (`environment.random_episodes`) it is certain more often.",
    ),
    BesideRandomRule(
        name="below_random",
        wrong=0.01,
        meaning="The score is certainly below that of random play after 1000 episodes and more: what is rewarded is "
        "not the score, or the policy is stuck. Reward shaping, a higher entropy coefficient.",
    ),
)

RULE_SETS: dict[str, tuple[Rule, ...]] = {"v3": V3, "seed": SEED, "generic": GENERIC, "none": ()}


@dataclass(frozen=True)
class Band:
    """The values at which a monitored metric is normal, and those at which it is abnormal, as the brief has them."""

    label: str
    metric: str
    normal: tuple[float, float]
    abnormal: tuple[float, float]
    """Values outside are abnormal."""
    upper_counts_when: tuple[tuple[str, float], ...] = ()
    """The upper bounds hold only while each of these metrics is above its value."""
    lower_counts_when: tuple[tuple[str, float], ...] = ()

    def bounds(self, latest: Mapping[str, float]) -> tuple[float | None, float | None]:
        """The normal band as it applies now, given the newest values of all metrics; None: no bound."""

        def counts(when: tuple[tuple[str, float], ...]) -> bool:
            return all(latest.get(metric, 0.0) > value for metric, value in when)

        low = self.normal[0] if counts(self.lower_counts_when) else None
        return low, self.normal[1] if counts(self.upper_counts_when) else None

    def judge(self, latest: Mapping[str, float]) -> str:
        """`normal`, `between` or `abnormal`, from the newest values of all metrics."""
        value, (low, high) = latest[self.metric], self.bounds(latest)
        if (low is None or value >= low) and (high is None or value <= high):
            return "normal"
        return "between" if self.abnormal[0] <= value <= self.abnormal[1] else "abnormal"

    def describe(self, latest: Mapping[str, float]) -> str:
        """The normal band as it applies now, in words."""
        low, high = self.bounds(latest)
        if low is not None and high is not None:
            return f"normal {low:.2g} – {high:.2g}"
        return f"normal ≥ {low:.2g}" if low is not None else "any" if high is None else f"normal ≤ {high:.2g}"


_LN4 = 1.3863
BANDS = (
    # Softmax sits near ln E by design, and the transition begins there: too high is a fault in sparse fine-tuning only.
    Band(
        "α-entropy / ln E",
        "alpha_entropy_ratio",
        (0.5 / _LN4, 1.0 / _LN4),
        (0.3 / _LN4, 1.2 / _LN4),
        upper_counts_when=(("sparse_share", 0.5), ("phase", Phase.TRANSITION)),
        lower_counts_when=(("expert_usage_excess", 0.73),),  # low under a balanced load: specialisation, the goal
    ),
    # 40 % and 80 % of four experts, as the excess over an even load: the same for any number of them.
    Band("usage excess", "expert_usage_excess", (0.0, 0.2), (0.0, 0.733)),
    # The brief's 10 %. It has no abnormal value on this side; the rule `dead_expert` has one.
    Band("least used expert", "expert_usage_min", (0.1, 1.0), (0.001, 1.0)),
    Band("gradient norm", "gradient_norm", (0.0, 5.0), (0.0, 10.0)),
    # Attention is even in a new encoder; it matters once the nodes' features are alike.
    Band(
        "attention variance",
        "gat_attention_variance",
        (0.1, 1.0),
        (0.05, 1.0),
        lower_counts_when=(("gat_smoothing", 0.9),),
    ),
)
