"""What is told of an experiment while it runs: to a terminal, a log, a command of the user's, the page."""
