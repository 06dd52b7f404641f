"""Media files as token sequences: decode, hear, see and read one clip."""
