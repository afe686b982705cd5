"""A training script that knows nothing of ladder or MLflow: logistic regression by gradient descent, in plain NumPy.

`ladder run examples/plain.yaml` starts it as it is. It takes flags, appends to a CSV file, and writes checkpoints. Its
learning rate grows by `--growth` at each step, so that with the default it breaks half-way.
"""

import argparse
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.5)
    parser.add_argument("--growth", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--resume", type=Path)
    options = parser.parse_args()

    random = np.random.default_rng(options.seed)
    inputs = random.normal(size=(500, 10))
    labels = inputs @ random.normal(size=10) + 0.5 * random.normal(size=500) > 0
    weights, first = np.zeros(10), 0
    if options.resume is not None:
        saved = np.load(options.resume)
        weights, first = saved["weights"], int(saved["step"])
        print(f"resumed from {options.resume} at step {first}")

    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "progress.csv").open("a", encoding="utf-8") as table:
        print("step,loss,accuracy,lr", file=table)
        for step in range(first + 1, options.steps + 1):
            rate = options.lr * options.growth**step
            margins = inputs @ weights * np.where(labels, 1, -1)
            slopes = -np.where(labels, 1, -1) / (1 + np.exp(np.clip(margins, -50, 50)))
            weights = weights - rate * (inputs.T @ slopes / len(inputs) + 0.01 * weights)
            loss, accuracy = np.logaddexp(0, -margins).mean(), (margins > 0).mean()
            print(f"{step},{loss},{accuracy},{rate}", file=table, flush=True)
            if step % 20 == 0:
                np.savez(options.out / f"model_{step}.npz", weights=weights, step=step)
            time.sleep(0.02)


if __name__ == "__main__":
    main()
