"""A trainer for the tests whose subject is the orchestrator: no torch to load, no NetHack to play.

It reports an update every tenth of a second in its attempt's spool, as V3 does, and ends in good order when it is asked
to: `python light.py`. Of itself it ends after `trainer.parameters.updates`, or when the file
`trainer.parameters.until` is there; a test that writes that file knows that the trainer was at work until then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

from pipeline.attempt.spool import Spool, SpoolWriter


def main() -> None:
    attempt = Path(os.environ["LADDER_ATTEMPT"])
    parameters = json.loads(attempt.read_text())["config"]["trainer"]["parameters"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    spool = SpoolWriter(Spool(attempt.parent))
    for update in count(1):
        metrics = {"update": update, "episodes": update, "alpha_entropy": 1.0, "steps_per_second": 640.0}
        spool.write(metrics, step=64 * update)
        if update == parameters.get("updates") or Path(parameters.get("until", "/never")).exists():
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()
