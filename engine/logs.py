"""Structured events on standard error: stream and utterance, never what was said or how it sounded."""

import logging
import sys

import structlog


def configure_logs(level: str, as_json: bool, only_if_unset: bool = False) -> None:
    """Commands call this once; an embedding program may have its own structlog settings, which are left alone."""
    if only_if_unset and structlog.is_configured():
        return
    renderer = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
