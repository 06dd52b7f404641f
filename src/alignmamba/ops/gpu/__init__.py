"""Operators as Triton kernels, for CUDA and ROCm; imported only when a backend asks for them."""
