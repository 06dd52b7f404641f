"""What holds for every test.

Property tests draw the same examples each time, with no deadline on a shared machine. Without a GPU, Triton kernels run under
Triton's interpreter, which must be chosen before triton is imported.
"""

import os

import torch
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("fixed")

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
