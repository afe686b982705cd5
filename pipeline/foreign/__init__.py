"""Somebody else's training script as a trainer, unmodified: its command line, its metrics, its checkpoints."""
