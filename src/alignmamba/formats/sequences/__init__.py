"""Folders and files of feature sequences."""
