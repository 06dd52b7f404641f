"""A page about one clip: it plays, its words light up, and what the model matched and needed is shown."""
