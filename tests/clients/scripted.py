"""An engine's sockets, doing what a test says: it publishes, reads what it is asked, and answers."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from clser.engine import wire
from clser.engine.records import Message


def framed(message: Message) -> list[bytes]:
    return [wire.topic(wire.kind_of(message), message.stream), wire.encode(message)]


class Question(dict[str, Any]):
    """What a client asked, and who."""

    def __init__(self, who: bytes, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.who = who


class ScriptedEngine:
    """Everything happens when the test says so; it waits for nothing but what surely comes."""

    def __init__(self, folder: Path, control: bool = True) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.endpoint = f"ipc://{folder}/bus"
        self.out = self._context.socket(zmq.XPUB)
        self.out.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.out.bind(self.endpoint)
        self.asked: zmq.Socket[bytes] | None = None
        if control:
            self.asked = self._context.socket(zmq.ROUTER)
            self.asked.bind(f"{self.endpoint}.control")

    def close(self) -> None:
        self._context.destroy(linger=0)

    def joined(self, subscriptions: int, meanwhile: Callable[[], object] = lambda: None) -> "ScriptedEngine":
        """Wait until somebody has subscribed. Who is there again does so only while reading: that is `meanwhile`."""
        for _ in range(500):
            meanwhile()
            while subscriptions and self.out.poll(10):
                self.out.recv()
                subscriptions -= 1
            if not subscriptions:
                return self
        raise AssertionError("no subscription came")

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.out.send_multipart(framed(message))

    def question(self, meanwhile: Callable[[], object] = lambda: None) -> Question:
        """What was asked next; `meanwhile` lets the one who asks do so."""
        assert self.asked is not None
        for _ in range(500):
            meanwhile()
            if self.asked.poll(10):
                who, request = self.asked.recv_multipart()
                return Question(who, json.loads(request))
        raise AssertionError("nothing was asked")

    def was_asked(self) -> bool:
        assert self.asked is not None
        return bool(self.asked.poll(100))

    def answer(self, question: Question, *messages: Message, **facts: Any) -> None:
        head = {"op": question["op"], "id": question["id"], "ok": True, "count": len(messages), "more": False, **facts}
        self.answer_raw(question, json.dumps(head).encode(), *(part for each in messages for part in framed(each)))

    def answer_raw(self, question: Question, *frames: bytes) -> None:
        assert self.asked is not None
        self.asked.send_multipart([question.who, *frames])


class Answering:
    """The engine answers in a thread, one question after the other, each with messages and facts."""

    def __init__(self, engine: ScriptedEngine, *answers: tuple[list[Message], dict[str, Any]]) -> None:
        self.questions: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run, args=(engine, answers))
        self._thread.start()

    def _run(self, engine: ScriptedEngine, answers: tuple[tuple[list[Message], dict[str, Any]], ...]) -> None:
        for messages, facts in answers:
            question = engine.question()
            self.questions.append(dict(question))
            engine.answer(question, *messages, **facts)

    def __enter__(self) -> "Answering":
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(10)
