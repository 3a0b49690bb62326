"""Diagnostic tables: each tests claims of the papers on drawings; see `experiments.claims`."""
