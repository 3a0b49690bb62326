"""All that needs a GPU, ready to run: measurements in parts, each bounded in time.

A part is a list of measurements (`rows.Measurement`), the most valuable first. `rows.run_part`
runs them and writes a JSON row after each. Parts: `networks` (a, c, d), `operations` (b), `host`
(e, f). How to run it on your own GPU: docs/benchmarks.md.
"""
