"""Benchmarks: ours, the limit and the peers, side by side. ``python -m tests.bench --help``."""
