"""What holds for every test: property tests draw the same examples each time, with no deadline on a shared machine."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("fixed")
