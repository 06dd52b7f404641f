"""Judging predictions: metrics, statistics, tables and what a computation costs, on numpy; statistics also on
scipy.
"""
