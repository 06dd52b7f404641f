"""Judging predictions: metrics, statistics (on scipy), tables, and what a computation costs."""
