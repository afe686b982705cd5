"""Real NetHack as a batch of games, and its observations as tensors for a policy."""
