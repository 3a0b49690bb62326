"""Tables of the diagnostic tasks, with claims; see `experiments.claims`."""
