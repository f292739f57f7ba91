import functools
import json
import types
import typing
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.engine import wire
from clser.engine.errors import GivenError
from clser.engine.records import KINDS, Message
from examples import EXAMPLES

GOLDEN = Path(__file__).parent.parent / "golden"
WIRES: list[wire.Form] = ["json", "msgpack"]


@functools.cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(wire.SCHEMA_FILE.read_text()))


# --- any record -------------------------------------------------------------------------------------------------------


def of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - a case a line
    """Anything of that type within the bounds the record declares."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        meta = next(argument for argument in arguments[1:] if isinstance(argument, msgspec.Meta))
        return st.floats(meta.ge, meta.le)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(of, arguments))
    if origin is dict:
        return st.dictionaries(of(arguments[0]), of(arguments[1]), max_size=4)
    if origin is tuple:
        endless = arguments[-1] is Ellipsis
        return st.lists(of(arguments[0]), max_size=4).map(tuple) if endless else st.tuples(*map(of, arguments))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: of(hints[name]) for name in kind.__struct_fields__})
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=8),
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return plain[kind]


@settings(max_examples=120)
@given(of(Message), st.sampled_from(WIRES))
def test_what_is_decoded_is_what_was_encoded(message: Message, form: wire.Form) -> None:
    assert wire.decode(wire.encode(message, form)) == message


@settings(max_examples=60)
@given(of(Message))
def test_every_message_is_as_the_committed_schema_says(message: Message) -> None:
    validator().validate(json.loads(wire.encode(message)))


@settings(max_examples=60)
@given(of(Message))
def test_both_forms_carry_the_same_fields(message: Message) -> None:
    assert json.loads(wire.encode(message)) == msgspec.msgpack.decode(wire.encode(message, "msgpack"))


# --- the schema -------------------------------------------------------------------------------------------------------


def test_the_committed_schema_is_the_one_the_records_make() -> None:
    """After a change of the records: `python -m clser.engine.wire`."""
    assert json.loads(wire.SCHEMA_FILE.read_text()) == json.loads(json.dumps(wire.schema()))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(wire.schema())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("result", {"arousal": 1.5}),
        ("result", {"stage": "maybe"}),
        ("result", {"emotion": {}}),
        ("result", {"utterance": "three"}),
        ("frame", {"speech": -0.1}),
        ("speech", {"event": "paused"}),
        ("status", {"state": "fine"}),
        ("gap", {"count": None}),
        ("gap", {"kind": "unheard-of"}),
    ],
)
def test_what_breaks_the_schema_is_not_decoded_either(kind: str, change: dict[str, Any]) -> None:
    broken = {**json.loads(wire.encode(EXAMPLES[kind])), **change}
    assert not validator().is_valid(broken)
    with pytest.raises(GivenError):
        wire.decode(json.dumps(broken).encode())
    with pytest.raises(GivenError):
        wire.decode(msgspec.msgpack.encode(broken))


# --- golden bytes -----------------------------------------------------------------------------------------------------


def test_there_is_an_example_of_every_kind() -> None:
    assert tuple(EXAMPLES) == KINDS
    assert [wire.kind_of(example) for example in EXAMPLES.values()] == list(KINDS)


@pytest.mark.parametrize("form", WIRES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_the_first_release(kind: str, form: wire.Form) -> None:
    golden = (GOLDEN / f"{kind}.{form}").read_bytes()
    assert wire.encode(EXAMPLES[kind], form) == golden
    assert wire.decode(golden) == EXAMPLES[kind]


# --- what others send -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_a_later_version_are_passed_over(kind: str) -> None:
    later = {**json.loads(wire.encode(EXAMPLES[kind])), "schema": "1.7", "mood": {"of": ["the", 1.5, None]}}
    for body in (json.dumps(later).encode(), msgspec.msgpack.encode(later)):
        decoded = wire.decode(body)
        assert decoded == msgspec.structs.replace(EXAMPLES[kind], schema="1.7")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_and_nothing_else(body: bytes) -> None:
    with pytest.raises(GivenError, match="none of ours"):
        wire.decode(body)


@given(st.sampled_from(KINDS), st.sampled_from(WIRES), st.data())
def test_damaged_messages_decode_or_are_refused_and_nothing_else(
    kind: str, form: wire.Form, data: st.DataObject
) -> None:
    body = bytearray(wire.encode(EXAMPLES[kind], form))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert wire.kind_of(wire.decode(bytes(body[: data.draw(st.integers(0, len(body)))]))) in KINDS
    except GivenError as refused:
        assert refused.exit_code == 2


NESTED = [b'{"a":' * 100_000, b'{"a":' + b"[" * 100_000, b"\x81\xa1a" + b"\x91" * 100_000]


@pytest.mark.parametrize("body", NESTED, ids=["maps", "lists", "msgpack"])
def test_endless_nesting_is_refused(body: bytes) -> None:
    with pytest.raises(GivenError):
        wire.decode(body)


# --- topics -----------------------------------------------------------------------------------------------------------


def test_topics_end_in_a_slash_so_that_no_stream_catches_another() -> None:
    assert wire.topic("result", "kitchen") == b"clser/1/result/kitchen/"
    assert wire.topic("result") == b"clser/1/result/"
    assert not wire.topic("result", "kitchen2").startswith(wire.topic("result", "kitchen"))


def test_prefixes_are_by_kind_first_then_by_stream() -> None:
    assert wire.prefixes("gap", "kitchen") == [b"clser/1/gap/kitchen/"]
    assert wire.prefixes("gap", None) == [b"clser/1/gap/"]
    assert wire.prefixes(None, "kitchen") == [f"clser/1/{kind}/kitchen/".encode() for kind in KINDS]


@pytest.mark.parametrize(("kind", "stream"), [("results", None), (None, "a/b"), (None, ""), (None, "x" * 65)])
def test_prefixes_of_what_cannot_be_are_refused(kind: str | None, stream: str | None) -> None:
    with pytest.raises(GivenError):
        wire.prefixes(kind, stream)
