"""Extraction of a corpus from media files: a table of clips, a store of those that were read, engines."""
