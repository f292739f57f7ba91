"""Prints what a running engine hears: start `clser-stream` in one terminal and this in another."""

from clser.clients.subscribe import Subscriber
from clser.engine.records import Result

with Subscriber(kind="result", keep_latest=True) as subscriber:
    for message in subscriber:
        if isinstance(message, Result) and message.final:
            feeling = message.emotion.label or "not sure"
            print(f"{message.stream}: {feeling} ({message.emotion.confidence:.0%})", flush=True)
