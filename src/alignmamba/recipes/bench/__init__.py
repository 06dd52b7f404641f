"""Benchmarks: subjects and peers, measuring them, the figures of the paper, files."""
