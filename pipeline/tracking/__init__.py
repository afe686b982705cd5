"""What is said to MLflow, and the metrics on an attempt's own disk until it has heard them."""
