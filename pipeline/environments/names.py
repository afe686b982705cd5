"""Names that other packages read without loading NetHack."""

SITUATIONS = ("low_hit_points", "monster_adjacent", "new_map", "else")
"""Kinds of moments; `pipeline.environments.situations` defines them."""
