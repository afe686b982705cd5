"""The comparison of experiments: what happened, what it cost, which policy to take, and whether that policy is good.

from pipeline.compare import load

night = load()                      # the newest experiment and its siblings; or load(["3f2a…"], root="mlruns")
night.attempts                      # a pandas frame, one row an attempt; schemas: `pipeline.compare.frames`
night.rungs(), night.improvement()  # over seeds: scores with intervals, probability of improvement
"""

from pipeline.compare.frames import Comparison
from pipeline.compare.from_store import load

__all__ = ["Comparison", "load"]
