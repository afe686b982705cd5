"""The trainer: a process of its own, which knows a configuration, a folder and a run, but no ladder."""
