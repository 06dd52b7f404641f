"""Recipes: the one floor where data, model and training meet."""
