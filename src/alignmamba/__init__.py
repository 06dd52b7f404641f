"""AlignMamba: fuse several token sequences into one prediction."""

__version__ = "0.1.0"
