"""The one exception tree. A message says what is wrong, what was given, and what to do.

ClserError
 ├─ GivenError      (exit 2)  a wrong argument, config or input
 ├─ MissingError    (exit 3)  something needed is not there: device, model, package, a port in use
 └─ FailedError     (exit 1)  it failed while running: a device pulled out, workers gone for good
     └─ OverloadedError       there is more to do than can be done: no new streams for now
"""


class ClserError(Exception):
    """Anything the project raises on purpose. `exit_code` is what a command ends with."""

    exit_code = 1


class GivenError(ClserError):
    """What was given cannot be used: an argument, a config, a file, samples."""

    exit_code = 2


class MissingError(ClserError):
    """What is needed is not there: a device, a model, a package, a free port."""

    exit_code = 3


class FailedError(ClserError):
    """It broke while running: a device pulled out, workers that die again and again."""

    exit_code = 1


class OverloadedError(FailedError):
    """There is more to do than can be done just now."""
