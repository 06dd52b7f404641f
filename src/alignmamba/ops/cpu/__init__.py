"""Operators compiled for the CPU; imported when they are first needed."""
