"""What the orchestrator and the trainer share: an attempt's folder and the files in it."""
