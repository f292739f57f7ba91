"""What all tests share: the fakes can be imported, random examples are the same every time, and the log keeps still."""

import logging
import sys
from pathlib import Path

import structlog
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for `from fakes import ...`

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,  # a shared machine is slow now and then, which is no failure
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# The engine leaves a log that somebody has configured alone; tests that look at it use structlog's capture_logs.
structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
    logger_factory=structlog.ReturnLoggerFactory(),
)
