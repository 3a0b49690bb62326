"""Benchmarks of this package on the current machine."""
