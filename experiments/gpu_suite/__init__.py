"""Benchmark suite for GPUs, in parts that each have a time limit.

A part is a list of measurements (`rows.Measurement`), the most important first. `rows.run_part`
runs them and writes one JSON row per measurement. The modules `networks` (parts a, c, d),
`operations` (b) and `host` (e, f) define the measurements. For how to run the suite on your own
GPU, see docs/benchmarks.md.
"""
