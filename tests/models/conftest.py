"""Tensors in tests are small: a second thread costs more than it computes, most of all where the machine has other work."""

from importlib.util import find_spec

if find_spec("torch"):
    import torch

    torch.set_num_threads(1)
