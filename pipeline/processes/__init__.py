"""Processes of this machine: how they start, who owns them, which signals they heed, and how all of them end."""
