"""Launchers start trainers: one file for each kind of place."""
