"""Benchmarks of the networks and the input pipeline against other codebases."""
