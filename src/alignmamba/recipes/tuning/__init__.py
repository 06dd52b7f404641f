"""Search for the settings of each method, with equal means for all, by Optuna and the valid split alone."""
