"""An experiment-tracking pipeline with an automatic fallback ladder."""

import gc

# Loading torch and MLflow makes a million objects that stay. With Python's own 700 they are searched for cycles again
# and again: a sixth of the time that a process takes to start.
gc.set_threshold(20_000, 10, 10)
