"""Benchmark suite for GPUs. It consists of six parts, a to f, and each has a time limit.

A part is a list of measurements (`rows.Measurement`); the most important ones are first.
`rows.run_part` runs them and writes one JSON row per measurement. Measurements are defined in the
modules `networks` (parts a, c and d), `operations` (part b) and `host` (parts e and f).
docs/benchmarks.md describes how to run the suite.
"""
