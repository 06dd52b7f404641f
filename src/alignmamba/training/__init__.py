"""Fitting a fusion model and running it, on Lightning Fabric."""
