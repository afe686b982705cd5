"""Third fallback: of four experts only Survival and General remain."""

from fallbacks.rung import Rung
from pipeline.config import ExperimentConfig

KEPT = ("survival", "general")


def _two_experts(config: ExperimentConfig) -> ExperimentConfig:
    policy = config.policy
    missing = [name for name in KEPT if name not in policy.experts]
    if missing:
        raise ValueError(f"policy.experts: the rung two_experts keeps {list(KEPT)}; missing: {missing}")
    bias = dict(zip(policy.experts, policy.router_bias, strict=False))
    kept = tuple(bias[name] for name in KEPT) if bias else ()
    return config.with_values({"policy.experts": KEPT, "policy.router_bias": kept})


TWO_EXPERTS = Rung(
    name="two_experts",
    summary="two experts, Survival and General; their rows are kept, the others' dropped",
    transform=_two_experts,
    needs="experts",
    addresses=("expert_collapse", "router_indecision"),
)
