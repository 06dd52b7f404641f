"""Readers of other people's files, one module per format."""
