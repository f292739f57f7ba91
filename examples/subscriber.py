"""Prints what a running engine hears: start `clser-stream` in one terminal and this in another."""

import sys

from clser.clients.subscribe import Subscriber
from clser.engine.records import Result

with Subscriber(kind="result") as subscriber:
    for message in subscriber:
        if isinstance(message, Result) and message.final:
            feeling = message.emotion.label or "not sure"
            print(f"{message.stream}: {feeling} ({message.emotion.confidence:.0%})", flush=True)
        if trouble := subscriber.trouble():
            print(trouble, file=sys.stderr)
