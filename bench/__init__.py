"""The instrument: see `python -m bench.grid --help`."""

import os

# OpenBLAS's idle threads spin for some 30 ms by default, into the sample of the next arm. 2^16
# cycles are some 20 us: enough for the next product of a sample to find them awake, which is worth
# a third of the speed of products of 32 examples. It is read when NumPy is imported, hence here.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
