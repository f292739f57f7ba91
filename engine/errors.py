"""The one exception tree, as the engine and its clients name it. It stands in `clser.models.errors`, which may import nobody."""

from clser.models.errors import ClserError, FailedError, GivenError, MissingError, OverloadedError

__all__ = ["ClserError", "FailedError", "GivenError", "MissingError", "OverloadedError"]
