"""Trained models on their way out: exported, quantised, pruned, distilled."""
