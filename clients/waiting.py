"""Messages that have come and were not read yet. Pure."""

from clser.engine import wire
from clser.engine.records import Message, Result

MOST = 1024


class Waiting:
    """In order of arrival. With `keep_latest` a partial result or a frame goes when a newer one of its topic comes."""

    def __init__(self, keep_latest: bool) -> None:
        self._keep_latest = keep_latest
        self._messages: dict[object, Message] = {}
        self._taken = 0
        self.overtaken = 0

    @property
    def full(self) -> bool:
        return len(self._messages) >= MOST

    def put(self, message: Message) -> None:
        kind = wire.kind_of(message)
        if self._keep_latest and kind in ("frame", "result"):
            topic = (kind, message.stream)
            passing = not isinstance(message, Result) or not message.final
            before = self._messages.get(topic)
            newer = before is None or before.epoch != message.epoch or before.seq < message.seq
            if before is not None:
                self.overtaken += newer or passing
                if newer:
                    del self._messages[topic]
            if passing and not newer:
                return  # it was asked for, and came back behind what came by itself
            if passing:
                self._messages[topic] = message
                return
        self._taken += 1
        self._messages[self._taken] = message

    def pop(self) -> Message | None:
        """The one that waited longest."""
        return self._messages.pop(next(iter(self._messages))) if self._messages else None
