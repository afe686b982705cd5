"""The measurements behind every claim: `python -m benchmarks.NAME` prints a table and writes `results/NAME.json`."""
