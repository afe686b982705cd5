"""What outlives a process: who runs an experiment, how an attempt ended, its checkpoints, and going on with them."""
