"""Loops over time that an exported graph holds as loops."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


@cache
def scripted(loop: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which the tracing exporter writes down as a loop, whatever its number of steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is called deprecated; the tracing exporter has no other loop
        said: Callable[..., Any] = torch.jit.script(loop)
    return said
