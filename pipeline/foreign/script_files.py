"""All that an attempt takes from files which a script writes in its own way: metrics and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.attempt.file import AttemptFile
from pipeline.foreign.checkpoints import Collector
from pipeline.foreign.follow import Follower


@dataclass(frozen=True)
class ScriptFiles:
    """What follows the files of one attempt. With this project's own trainer it does nothing."""

    metrics: Follower | None
    checkpoints: Collector | None

    @staticmethod
    def of(file: AttemptFile, working: Path, root: Path, *, begun: bool = False) -> ScriptFiles:
        """To be made before the script is started: it counts what is new from then on.

        Args:
            begun: the script is at work already, and what followed its files is gone: what that has reported is not
                reported again.
            working: the folder in which the script runs.
            root: the tracking root.
        """
        return ScriptFiles(
            Follower.of(file.config, file.where, working, root, begun=begun),
            Collector.of(file.config, file.where, working, root, begun=begun),
        )

    def read_metrics(self, *, to_the_end: bool = False) -> None:
        """Reports what is new; `to_the_end`: all of it, as the script has ended."""
        if self.metrics is not None:
            self.metrics.poll(to_the_end=to_the_end)

    def keep_checkpoints(self, step: int) -> None:
        """Keeps those that are complete. `step`: that of the newest metrics."""
        if self.checkpoints is not None:
            self.checkpoints.poll(step)

    def finish(self, *, in_order: bool) -> None:
        """Takes what is left, once the script is gone. `in_order`: it has ended by itself."""
        self.read_metrics(to_the_end=True)
        if self.checkpoints is not None:
            self.checkpoints.finish(in_order=in_order)

    def news(self) -> list[str]:
        """What the user should know, a sentence each, once."""
        return [sentence for each in (self.metrics, self.checkpoints) if each is not None for sentence in each.news()]
