"""The trainer: a process of its own, which knows a configuration, a folder and a run, and nothing of the ladder."""
