"""Somebody's own function, named in a setting as `module:function`."""

import importlib
from collections.abc import Callable
from typing import Any

from clser.models.errors import GivenError, MissingError


def is_hook(name: str) -> bool:
    """Whether it has the form of one: two names of Python with a colon between."""
    module, colon, function = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), function))


def hook(name: str, where: str) -> Callable[..., Any]:
    """The function. `where` says in messages who asked for it. Importing the module runs it: name only what you trust."""
    if not is_hook(name):
        raise GivenError(f"{where} {name!r}: write module:function, where Python finds the module")
    module, _, function = name.partition(":")
    try:
        there = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingError(f"{where} {name}: no module {error.name}; put its folder into PYTHONPATH") from error
    made = getattr(there, function, None)
    if not callable(made):
        raise GivenError(f"{where} {name}: the module {module} has no function {function}")
    called: Callable[..., Any] = made
    return called
