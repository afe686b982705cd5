"""Processes of this machine: how they start, whom they belong to, what they hear, and how they all end."""
