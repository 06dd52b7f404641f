"""Corpora in the layouts of other programs."""
