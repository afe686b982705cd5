"""Where a trainer runs: one file per place."""
