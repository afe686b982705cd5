"""Expert collapse: softmax again, annealed more slowly; a stronger balance; a router that has forgotten its momentum.

Softmax alone does not cure a router that has collapsed. So the weights come from a checkpoint of before, and Adam's
moments of the router, which push on in the same direction, are left behind. Where there is none, as the router has
leant to one expert from the first, that expert has learnt all the same: it becomes all of them, under a new router.
"""

from fallbacks.remedies.remedy import FIRST_SUSPECTS, Reannealed, Remedy, Restored
from pipeline.attempt.file import Carry

REBALANCE_ROUTER = Remedy(
    name="rebalance_router",
    summary="softmax again, then annealed half as fast; three times the load balance; the router's moments begin anew",
    cures=("expert_collapse",),
    restores=(
        *FIRST_SUSPECTS,
        Restored("training.alpha_entropy_coef", "below"),
        Restored("training.load_balance_coef", "below"),
        Restored("training.router_learning_rate_factor", "above"),
        Restored("policy.router_bias", "other"),
        Restored("phases.temperature_start", "below"),
        Restored("phases.temperature_end", "below"),
    ),
    scales={"training.load_balance_coef": 3.0},
    reannealed=Reannealed(softmax_share=0.1, slower=2.0),
    carry=Carry(forgets=("router",)),
    carry_from_decline=Carry(forgets=("router", "experts"), upcycles=True),
    needs="V3's router",
)
