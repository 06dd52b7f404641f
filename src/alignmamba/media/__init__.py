"""From media files to token sequences: decode, hear, see and read one clip."""
