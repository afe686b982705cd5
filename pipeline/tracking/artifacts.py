"""The names of artifacts that are read again, by this program or by the page."""

from __future__ import annotations

CONFIGURATION = "experiment.yaml"
ATTEMPTS = "attempts.json"
"""On the parent run: the table of attempts."""
VERDICT = "verdict.json"
ATTENTION, BEST_EPISODE = "figures/attention.svg", "figures/best_episode.gif"
"""What a trainer leaves when an attempt has been trained to the end."""
