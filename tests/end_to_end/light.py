"""A trainer for the tests whose subject is the orchestrator: no torch to load, no NetHack to play.

It reports an update every tenth of a second in its attempt's spool, as V3 does, and ends in good order when it is asked
to: `python light.py`. `trainer.parameters.updates`: how many, by default more than anybody waits for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from pipeline.tracking.spool import Spool, SpoolWriter


def main() -> None:
    attempt = Path(os.environ["LADDER_ATTEMPT"])
    updates = json.loads(attempt.read_text())["config"]["trainer"]["parameters"].get("updates", 100_000)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    spool = SpoolWriter(Spool(attempt.parent))
    for update in range(1, updates + 1):
        metrics = {"update": update, "episodes": update, "alpha_entropy": 1.0, "steps_per_second": 640.0}
        spool.write(metrics, step=64 * update)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
