"""Pickles of others, read as data."""
