"""`clser-watch`: what a running engine publishes, shown here."""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from clser.clients.commands import output
from clser.clients.commands.shell import Ending, Parser, parser, run, seconds, set_up_log
from clser.clients.console import Console
from clser.clients.control import Control
from clser.clients.subscribe import Subscriber
from clser.engine import keys, wire
from clser.engine.errors import GivenError
from clser.engine.places import default_endpoint
from clser.engine.records import ENGINE, KINDS, Message, Status

QUIET_S = 3.0  # an engine says at least a heartbeat every second
TROUBLE_S = 1.0  # between two lines about what went wrong


def _parser() -> Parser:
    made = parser(
        "clser-watch",
        "Shows what a running engine publishes. Ends with Ctrl-C. With an action: asks the engine, or makes keys.",
    )
    _add_places(made, "auto", None)
    made.add_argument("--stream", metavar="NAME", help="this stream only (default: all)")
    made.add_argument("--kind", choices=KINDS, help="messages of this kind only (default: those that the form shows)")
    made.add_argument(
        "--json", nargs="?", const="results", choices=("results", "all"), metavar="all",
        help="one result a line on standard output and nothing else; --json=all, or with --kind: other kinds too",
    )  # fmt: skip
    made.add_argument(
        "--replay", type=seconds, default=0.0, metavar="SECONDS",
        help="begin with so much of the past (default: none; an engine keeps 60 s)",
    )  # fmt: skip
    made.add_argument("--duration", type=seconds, metavar="SECONDS", help="end after so long (default: never)")
    inner = made.add_subparsers(dest="action", required=False, metavar="[ACTION]", parser_class=Parser)
    _add_actions(inner)
    return made


def _add_places(made: argparse.ArgumentParser, auto: str, without: str | None) -> None:
    """Where the engine is, and how it knows us."""
    made.add_argument(
        "--connect", default=auto, metavar="ENDPOINT",
        help="the engine's publishing socket (default: auto, the one in this user's runtime folder)",
    )  # fmt: skip
    made.add_argument(
        "--control", default=auto, metavar="ENDPOINT",
        help="the engine's control socket, where lost messages are asked for (default: auto, the one beside --connect)",
    )  # fmt: skip
    made.add_argument(
        "--keys", default=without, metavar="DIR",
        help="folder of the keys to connect with over tcp (default: none; `clser-watch keys new DIR` makes them)",
    )  # fmt: skip


def _add_actions(inner: Any) -> None:
    what = "put a question to a running engine and print its answer, a JSON object"
    ask = inner.add_parser("ask", help=what, description=what, allow_abbrev=False)
    ask.add_argument(
        "op", metavar="OP", help="live, ready, describe, mute, reset_speaker, reload, load, ... (docs/bus.md)"
    )
    ask.add_argument(
        "fields", nargs="*", metavar="KEY=VALUE", help="what belongs to it, like stream=kitchen muted=true"
    )
    _add_places(ask, argparse.SUPPRESS, argparse.SUPPRESS)
    what = "make keys, for engines and clients on different machines"
    made = inner.add_parser("keys", help=what, description=what, allow_abbrev=False)
    new = made.add_subparsers(dest="keys_action", required=True, metavar="new", parser_class=Parser).add_parser(
        "new", help="a pair, and a list of who may connect", allow_abbrev=False
    )
    new.add_argument("folder", metavar="DIR", help="a new folder")


class _Watch:
    """Passes on what was asked for, and says when the engine has fallen silent."""

    def __init__(self, subscriber: Subscriber, console: Console, form: output.Form, given: argparse.Namespace) -> None:
        self._subscriber = subscriber
        self._console = console
        self._form = form
        self._given = given

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            message = await self._subscriber.areceive(QUIET_S)
            if message is None:
                self._say(f"heard nothing for {QUIET_S:.0f} s: {self._guess()}?")
                message = await self._subscriber.areceive()
                assert message is not None
                self._say("")
            if self._asked_for(message):
                yield message

    def _guess(self) -> str:
        """Why nothing comes."""
        endpoint, refused = self._subscriber.endpoint, self._subscriber.refused
        if refused:
            return f"{refused} messages came that are none of ours; does {endpoint} speak another --wire"
        key = ", or it does not know our key" if self._given.keys else ""
        key = key or (", or it wants --keys" if endpoint.startswith("tcp://") else "")
        return f"no engine at {endpoint}{key}"

    def _asked_for(self, message: Message) -> bool:
        """The engine's own status comes along as its sign of life; only the console shows it unasked."""
        own = isinstance(message, Status) and message.stream == ENGINE
        given = self._given
        return not own or self._form != "all" or (given.stream in (None, ENGINE) and given.kind in (None, "status"))

    async def report(self) -> None:
        """Say now and then what went wrong on the way."""
        while True:
            await asyncio.sleep(TROUBLE_S)
            self.say_trouble()

    def say_trouble(self) -> None:
        trouble = self._subscriber.trouble()
        if trouble:
            self._note(trouble)

    def _note(self, words: str) -> None:
        if self._form == "console":
            self._console.note(words)
        elif words:
            print(f"clser-watch: {words}", file=sys.stderr, flush=True)

    def _say(self, words: str) -> None:
        """How the engine itself is."""
        self._note(words)
        if self._form == "console":
            self._console.at(self._subscriber.endpoint, "no engine?" if words else "")


async def _watch(given: argparse.Namespace, form: output.Form) -> int:
    if form == "lines" and given.kind in ("speech", "frame"):
        raise GivenError(f"--kind {given.kind}: there are no plain lines for it; add --json")
    ending = Ending()
    kinds = [given.kind] if given.kind else {"results": ["result"], "lines": ["result", "gap", "status"]}.get(form)
    if form == "results" and given.kind:
        form = "all"  # of the kind that was asked for
    subscriber = Subscriber(
        given.connect, kind=kinds, stream=given.stream, keep_latest=given.json is None, with_engine=True,
        replay_s=given.replay, control=given.control, keys=given.keys,
    )  # fmt: skip
    console = Console("clser-watch", endpoint=subscriber.endpoint)
    watch = _Watch(subscriber, console, form, given)
    with subscriber, output.owned(form, console):
        poured = asyncio.create_task(output.pour(watch.messages(), form, console), name="output")
        others = [asyncio.create_task(each) for each in (ending.wait(), watch.report())]
        await asyncio.wait({poured, *others}, timeout=given.duration, return_when=asyncio.FIRST_COMPLETED)
        for task in (poured, *others):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await poured
        watch.say_trouble()
    return ending.code


def _ask(given: argparse.Namespace) -> int:
    fields = dict(_field(each) for each in given.fields)
    if given.op == "load" and isinstance(fields.get("delta"), str) and Path(str(fields["delta"])).is_file():
        fields["delta"] = str(Path(str(fields["delta"])).resolve())  # the engine may run in another folder
    if "delta=" in given.fields:
        raise GivenError("'delta=': give the path of a delta, or null for the model as it is")
    publish = default_endpoint() if given.connect == "auto" else given.connect
    with Control(given.control, given.keys, publish=publish) as control:
        reply = control.exchange(given.op, fields)
        print(json.dumps(reply.facts, ensure_ascii=False))
        for _, message in control.messages(reply):
            print(wire.encode(message).decode())
    return 0


def _field(text: str) -> tuple[str, object]:
    key, given, value = text.partition("=")
    if not given or not key.isidentifier():
        raise GivenError(f"{text!r}: write KEY=VALUE, like stream=kitchen")
    try:
        read = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise GivenError(f"{text!r}: {value!r} is no YAML value") from error
    meant = read is None or (isinstance(read, str | int | float | list) and value not in SAID_FOR_BOOLEANS)
    return key, read if meant else value


SAID_FOR_BOOLEANS = {each for word in ("yes", "no", "on", "off") for each in (word, word.title(), word.upper())}
"""To YAML 1.1; to us they are words."""

MADE = """\
{folder} holds
  {secret:<14}your own pair: hand it to nobody
  {public:<14}the public half: hand it to whoever you connect to, or who connects to you
  {allowed:<14}who may connect to you: a line for each, their public key and a name
  {engine:<14}the public key of the engine that you connect to
As it is, the folder works on both ends on this machine. Between two machines, each makes its own:
  the engine's machine adds the other's {public} as a line of its {allowed};
  the other machine replaces its {engine} by the engine's {public}.
The engine starts with `clser-stream --keys {folder} --bind tcp://ADDRESS:PORT`, who watches with
`clser-watch --keys {folder} --connect tcp://ADDRESS:PORT`.
"""


def _new_keys(given: argparse.Namespace) -> int:
    keys.make_keys(given.folder)
    files = {"secret": keys.SECRET, "public": keys.PUBLIC, "allowed": keys.ALLOWED, "engine": keys.ENGINE}
    print(MADE.format(folder=given.folder, **files), end="")
    return 0


def _main() -> int:
    given = _parser().parse_args()
    set_up_log(given)
    if given.action == "ask":
        return _ask(given)
    if given.action == "keys":
        return _new_keys(given)
    return asyncio.run(_watch(given, output.choose(given.json)))


def main() -> None:
    run(_main)


if __name__ == "__main__":
    sys.argv[0] = "clser-watch"
    main()
