"""Grids of runs: the paper's tables and figures on any corpus, with honest uncertainty."""
