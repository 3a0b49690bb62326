"""Benchmarks of networks and input pipeline against other codebases (baselines)."""
