"""What changes from one attempt to the next. Pure: no torch, no MLflow."""
