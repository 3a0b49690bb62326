"""Ablations of this project, which repeat comparisons of the papers with small datasets."""
