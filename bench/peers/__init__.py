"""`python -m bench.peers`: the same training in Keras, JAX, PyTorch and with `fit_compiled`.

Every peer has a process of its own, so that no library's threads, allocator or compiler touches
another's; the driver tells each process when to take its sample, so that rounds are interleaved
across processes.

All peers train the same network (glorot-uniform kernels, biases from zero, all of them trained)
with Adam at 1e-3 and epsilon 1e-7, on the same batches of the same images, and report the mean
loss of an epoch and no other metric. Each does it as its own documentation teaches. Keras adds
epsilon before Adam's bias correction, JAX and PyTorch after it, which the first steps show.
"""
