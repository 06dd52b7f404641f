"""Corpora: the native archive, the synthetic corpus, loaders, standardisation."""
