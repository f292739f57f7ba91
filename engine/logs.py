"""Structured events on standard error: stream and utterance, never what was said or how it sounded.

A program that has configured structlog keeps its settings, and our events go there; one that has not gets warnings and errors
from us, and its own settings are not touched. Commands configure.
"""

import logging
import sys
from typing import Any

import structlog


def configure_logs(level: str, as_json: bool) -> None:
    """For commands: how the log of this process looks, and from which level on."""
    structlog.configure(
        processors=_processors(as_json),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _processors(as_json: bool) -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        *([structlog.processors.format_exc_info] if as_json else []),
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # others show the values of variables: what people felt
        ),
    ]


class _Log:
    """structlog's logger where somebody has configured it, else one of our own."""

    def __getattr__(self, level: str) -> Any:
        if structlog.is_configured():
            return getattr(structlog.get_logger(), level)
        quiet = structlog.make_filtering_bound_logger(logging.WARNING)
        return getattr(
            structlog.wrap_logger(structlog.PrintLogger(sys.stderr), _processors(as_json=False), quiet), level
        )


log: Any = _Log()
