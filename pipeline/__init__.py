"""An experiment-tracking pipeline with an automatic fallback ladder."""
