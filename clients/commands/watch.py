"""`clser-watch`: what a running engine publishes, shown here."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from clser.clients.commands import output
from clser.clients.commands.shell import Ending, Parser, parser, run, seconds, set_up_log
from clser.clients.console import Console
from clser.clients.subscribe import Subscriber
from clser.engine.errors import GivenError
from clser.engine.records import ENGINE, KINDS, Message, Status

QUIET_S = 3.0  # an engine says at least a heartbeat every second


def _parser() -> Parser:
    made = parser("clser-watch", "Shows what a running engine publishes. Ends with Ctrl-C.")
    made.add_argument(
        "--connect", default="auto", metavar="ENDPOINT",
        help="the engine's publishing socket (default: auto, the one in this user's runtime folder)",
    )  # fmt: skip
    made.add_argument("--stream", metavar="NAME", help="this stream only (default: all)")
    made.add_argument("--kind", choices=KINDS, help="messages of this kind only (default: those that the form shows)")
    made.add_argument(
        "--json", nargs="?", const="results", choices=("results", "all"), metavar="all",
        help="one result a line on standard output and nothing else; --json=all, or with --kind: other kinds too",
    )  # fmt: skip
    made.add_argument("--duration", type=seconds, metavar="SECONDS", help="end after so long (default: never)")
    return made


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
                self._say(f"heard nothing for {QUIET_S:.0f} s: no engine at {self._subscriber.endpoint}?")
                message = await self._subscriber.areceive()
                assert message is not None
                self._say("")
            if self._asked_for(message):
                yield message

    def _asked_for(self, message: Message) -> bool:
        """The engine's own status comes along as its sign of life; only the console shows it unasked."""
        own = isinstance(message, Status) and message.stream == ENGINE
        given = self._given
        return not own or self._form != "all" or (given.stream in (None, ENGINE) and given.kind in (None, "status"))

    def _say(self, words: str) -> None:
        if self._form == "console":
            self._console.note(words)
            self._console.at(self._subscriber.endpoint, "no engine?" if words else "")
        elif words:
            print(f"clser-watch: {words}", file=sys.stderr, flush=True)


async def _watch(given: argparse.Namespace, form: output.Form) -> int:
    if form == "lines" and given.kind in ("speech", "frame"):
        raise GivenError(f"--kind {given.kind}: there are no plain lines for it; add --json")
    ending = Ending()
    kinds = [given.kind] if given.kind else {"results": ["result"], "lines": ["result", "gap", "status"]}.get(form)
    if form == "results" and given.kind:
        form = "all"  # of the kind that was asked for
    subscriber = Subscriber(
        given.connect, kind=kinds, stream=given.stream, keep_latest=form == "console", with_engine=True
    )
    console = Console("clser-watch", endpoint=subscriber.endpoint)
    watch = _Watch(subscriber, console, form, given)
    with subscriber, output.owned(form, console):
        poured = asyncio.create_task(output.pour(watch.messages(), form, console), name="output")
        asked = asyncio.create_task(ending.wait(), name="signals")
        await asyncio.wait({poured, asked}, timeout=given.duration, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not poured.done():
            poured.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await poured
    if subscriber.missed and form != "console":
        print(f"clser-watch: {subscriber.missed} messages were lost on the way: reading was too slow", file=sys.stderr)
    return ending.code


def _main() -> int:
    given = _parser().parse_args()
    set_up_log(given)
    return asyncio.run(_watch(given, output.choose(given.json)))


def main() -> None:
    run(_main)


if __name__ == "__main__":
    sys.argv[0] = "clser-watch"
    main()
