"""One experiment: attempt after attempt down its ladder, watched, concluded, and continued after an interruption."""
