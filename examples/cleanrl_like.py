"""PPO on CartPole in one file, in the manner of CleanRL: flags, TensorBoard, a checkpoint every few updates.

It knows nothing of `ladder run examples/cleanrl_like.yaml`. `--decay` multiplies its learning rate at each quarter.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical
from torch.utils.tensorboard import SummaryWriter

ENVS, LENGTH, EPOCHS, GAMMA = 4, 64, 4, 0.98


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="at the start")
    parser.add_argument("--decay", type=float, default=0.5, help="of the learning rate, at each quarter")
    parser.add_argument("--total-timesteps", type=int, default=15_360, help="in all environments together")
    parser.add_argument("--max-grad-norm", type=float, default=0.5, help="of the gradient")
    parser.add_argument("--seed", type=int, default=1, help="of the games and the weights")
    parser.add_argument("--out", type=Path, default=Path("runs/cleanrl_like"), help="for all files")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    writer = SummaryWriter(args.out)
    envs = gym.make_vec("CartPole-v1", num_envs=ENVS, vectorization_mode="sync")
    actor = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    agent = nn.ModuleList([actor, critic])
    optimizer, step = torch.optim.Adam(agent.parameters()), 0
    if args.resume is not None:
        agent.load_state_dict(torch.load(args.resume))
        step = int(args.resume.stem.removeprefix("agent_"))

    seen, running, finished = torch.tensor(envs.reset(seed=args.seed + step)[0]), torch.zeros(ENVS), [20.0]
    while step < args.total_timesteps:
        optimizer.param_groups[0]["lr"] = args.learning_rate * args.decay ** (4 * step // args.total_timesteps)
        rows = []
        for _ in range(LENGTH):
            with torch.no_grad():
                policy, value = Categorical(logits=actor(seen).clamp(-20, 20)), critic(seen)[:, 0]
            action = policy.sample()
            observed, reward, ended, cut, _ = envs.step(action.numpy())
            over, reward = torch.tensor(ended | cut), torch.tensor(reward, dtype=torch.float32)
            running += reward
            finished += running[over].tolist()
            running[over] = 0
            rows.append((seen, action, policy.log_prob(action), value, reward, over))
            seen = torch.tensor(observed)
        states, actions, before, values, rewards, overs = map(torch.stack, zip(*rows, strict=True))
        to_go, returns = critic(seen)[:, 0].detach(), torch.zeros(LENGTH, ENVS)
        for moment in reversed(range(LENGTH)):
            to_go = returns[moment] = rewards[moment] + GAMMA * to_go * ~overs[moment]
        advantages = (returns - values - (returns - values).mean()) / ((returns - values).std() + 1e-8)
        for _ in range(EPOCHS):
            policy = Categorical(logits=actor(states).clamp(-20, 20))
            ratio = (policy.log_prob(actions) - before).exp()
            policy_loss = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
            value_loss = (critic(states)[..., 0] - returns).pow(2).mean()
            optimizer.zero_grad()
            (policy_loss + 0.5 * value_loss).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
        step += ENVS * LENGTH
        writer.add_scalar("charts/episodic_return", sum(finished[-20:]) / len(finished[-20:]), step)
        writer.add_scalar("losses/value_loss", value_loss.item(), step)
        writer.add_scalar("losses/policy_loss", policy_loss.item(), step)
        if step % (8 * ENVS * LENGTH) == 0:
            torch.save(agent.state_dict(), args.out / f"agent_{step}.pt")


if __name__ == "__main__":
    main()
