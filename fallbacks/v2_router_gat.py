"""Last fallback: V2's Gumbel router and hyper-parameters on the features of the last healthy graph encoder."""

from fallbacks.rung import Rung, setting
from pipeline.attempt.file import Carry

V2_VALUES = {
    # V2's router starts afresh: V3's bias and learning-rate factor do not carry over.
    "policy.router_bias": (),
    "training.router_learning_rate_factor": 1.0,
    "training.learning_rate": 3e-4,
    "training.warmup_steps": 0,
    "training.cosine": False,
    "training.clip_ratio": 0.2,
    "training.batch_size": 128,
    "training.ppo_epochs": 3,
    "training.max_grad_norm": 0.5,
    "training.entropy_coef": 0.05,
    "training.alpha_entropy_coef": 0.1,
    "training.load_balance_coef": 0.0,
    "training.diversity_coef": 0.0,
    "training.gamma": 0.99,
    "training.gae_lambda": 0.95,
    # V2 has no phases: one rate and one kind of routing throughout.
    "phases.warmup.routing": "softmax",
    "phases.transition.routing": "softmax",
    "phases.finetune.routing": "softmax",
    "phases.warmup.learning_rate_factor": 1.0,
    "phases.transition.learning_rate_factor": 1.0,
    "phases.finetune.learning_rate_factor": 1.0,
}

V2_ROUTER_GAT = Rung(
    name="v2_router_gat",
    summary="V2's Gumbel router and hyper-parameters; the GAT only extracts features",
    transform=setting({"policy.kind": "v2_gat", **V2_VALUES}),
    carry=Carry(modules=("gat",), optimiser=False, schedule=False),
)
