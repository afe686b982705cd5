"""The rungs of the ladder, and what follows a verdict. Pure: no torch, no MLflow."""
