"""A Lightning script: a small classifier of synthetic data, with a CSV table and a checkpoint every 50 steps.

It knows nothing of `ladder run examples/lightning_model.yaml`. `--decay` multiplies its learning rate at each quarter.
"""

import argparse

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        self.net = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        inputs, labels = batch
        logits = self.net(inputs)
        loss = cross_entropy(logits, labels)
        self.log("train_loss", loss)
        self.log("train_acc", (logits.argmax(1) == labels).float().mean())
        return loss

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[dict[str, object]]]:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.args.lr)

        def factor(step: int) -> float:
            return self.args.decay ** (4 * step // self.args.max_steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--lr", type=float, default=1e-2, help="at the start")
    parser.add_argument("--decay", type=float, default=0.5, help="of the learning rate, at each quarter")
    parser.add_argument("--batch-size", type=int, default=32, help="of the training")
    parser.add_argument("--max-steps", type=int, default=400, help="of the optimiser")
    parser.add_argument("--seed", type=int, default=1, help="of the data and the weights")
    parser.add_argument("--out", default="lightning_logs", help="for all files")
    parser.add_argument("--resume", help="a checkpoint to go on from")
    args = parser.parse_args()

    lightning.seed_everything(args.seed)
    inputs = torch.randn(2000, 10)
    labels = (inputs @ torch.randn(10, 3)).argmax(1)
    batches = DataLoader(TensorDataset(inputs, labels), args.batch_size, shuffle=True)
    trainer = lightning.Trainer(
        max_steps=args.max_steps,
        accelerator="cpu",
        logger=CSVLogger(args.out, name="", version=""),
        callbacks=[ModelCheckpoint(args.out, every_n_train_steps=50, save_top_k=-1)],
        log_every_n_steps=5,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(args), batches, ckpt_path=args.resume)


if __name__ == "__main__":
    main()
