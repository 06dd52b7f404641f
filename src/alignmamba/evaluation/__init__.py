"""Judging predictions: metrics, statistics and protocols, on numpy alone."""
