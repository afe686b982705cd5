"""Judges whether a run is healthy: definitions of the metrics, rules on their histories, verdicts."""
