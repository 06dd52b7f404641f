"""Predictions for other programs over HTTP: what they send, what waits together, and the answers."""
