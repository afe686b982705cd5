"""A Stable-Baselines3 script: A2C on CartPole, with TensorBoard and a checkpoint every 1000 steps.

It knows nothing of `ladder run examples/sb3.yaml`. `--decay` multiplies its learning rate at each quarter.
"""

import argparse
from pathlib import Path

import torch
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="at the start")
    parser.add_argument("--decay", type=float, default=0.5, help="of the learning rate, at each quarter")
    parser.add_argument("--total-timesteps", type=int, default=12_000, help="in all environments together")
    parser.add_argument("--max-grad-norm", type=float, default=0.5, help="of the gradient")
    parser.add_argument("--seed", type=int, default=1, help="of the games and the weights")
    parser.add_argument("--out", type=Path, default=Path("runs/sb3"), help="for all files")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    args = parser.parse_args()

    def rate(left: float) -> float:
        """`left`: from 1 at the start to 0 at the end."""
        return args.learning_rate * args.decay ** int(4 * (1 - left))

    torch.set_num_threads(1)
    envs = make_vec_env("CartPole-v1", n_envs=4, seed=args.seed)
    settings = {"learning_rate": rate, "max_grad_norm": args.max_grad_norm, "tensorboard_log": str(args.out)}
    if args.resume is None:
        model = A2C("MlpPolicy", envs, seed=args.seed, device="cpu", **settings)
    else:
        model = A2C.load(args.resume, envs, device="cpu", custom_objects=settings)
    left = args.total_timesteps - model.num_timesteps
    saver = CheckpointCallback(save_freq=250, save_path=str(args.out / "checkpoints"))
    model.learn(left, callback=saver, log_interval=10, reset_num_timesteps=args.resume is None)


if __name__ == "__main__":
    main()
