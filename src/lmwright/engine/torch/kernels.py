"""What torch keeps of the matrix products that it has computed."""

import os

# Kernels of so many shapes are kept; the least recently used one is dropped, and compiled again
# (2 ms) when it is needed. A step of a decoder has 7 shapes of weights.
N_KERNELS = 128
# One is oneDNN's own cache of kernels, the other torch's on top of it. Each keeps 1,024 by default,
# of about 0.7 MB: one for each matrix and number of tokens.
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def bound_kernels() -> None:
    """Let a process that reads texts of all lengths keep few kernels; call it before torch is used.

    What is set in the environment already counts.
    """
    for name in CACHES:
        os.environ.setdefault(name, str(N_KERNELS))
