"""Records <-> message frames, and the JSON Schema that derives from the same records."""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from clser.engine.errors import GivenError
from clser.engine.records import KINDS, STREAM_NAME, Message

Form = Literal["json", "msgpack", "psi"]
VERSION = "1"

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_from_json: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_from_msgpack: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def kind_of(record: Message) -> str:
    tag = record.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def topic(kind: str, stream: str = "") -> bytes:
    """The topic of a stream's messages of one kind; without a stream, the prefix of all streams'."""
    return f"clser/{VERSION}/{kind}/{stream}/".encode() if stream else f"clser/{VERSION}/{kind}/".encode()


def prefixes(kind: str | None, stream: str | None) -> list[bytes]:
    """What to subscribe to: one kind or all, one stream or all. A stream's own topics do not include the engine's status."""
    if kind is not None and kind not in KINDS:
        raise GivenError(f"kind {kind!r}: give one of {', '.join(KINDS)}")
    if stream is not None and not STREAM_NAME.fullmatch(stream):
        raise GivenError(f"stream {stream!r}: a name has 1 to 64 of A-Z a-z 0-9 . _ -")
    return [topic(each, stream or "") for each in ([kind] if kind else KINDS)]


def encode(record: Message, form: Form = "json") -> bytes:
    """The body. Numbers are finite: the records' makers see to it, and a property test holds them to it."""
    assert form != "psi", "\\psi wants to know the time: see engine/psi.py"
    return _json.encode(record) if form == "json" else _msgpack.encode(record)


def decode(body: bytes) -> Message:
    """A body in either form (a JSON object begins with a brace, a MessagePack map never does)."""
    try:
        return _from_json.decode(body) if body[:1] == b"{" else _from_msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GivenError(f"a message of {len(body)} bytes is none of ours: {error}") from error


def schema() -> dict[str, Any]:
    """The JSON Schema of every message."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"clser-stream bus, version {VERSION}",
        **msgspec.json.schema(Message),
    }


SCHEMA_FILE = Path(__file__).parent / "schema" / "message.json"


def write_schema() -> None:
    """Bring the committed schema up to the records: `python -m clser.engine.wire`."""
    SCHEMA_FILE.write_text(json.dumps(schema(), indent=1) + "\n")


if __name__ == "__main__":
    write_schema()
