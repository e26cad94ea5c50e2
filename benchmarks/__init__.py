"""Benchmarks: one command each, `python -m benchmarks.NAME`, rivals in the same run."""
