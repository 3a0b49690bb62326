"""Ablations of this project on small data, which follow questions of the papers' tables."""
