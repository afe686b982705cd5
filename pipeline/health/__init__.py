"""What counts as healthy: definitions of the monitored metrics, rules over their histories, verdicts."""
