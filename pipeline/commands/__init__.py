"""What `ladder` does beside running an experiment; one command, one module."""
