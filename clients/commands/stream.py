"""`clser-stream`: the engine with its console, or its results as JSON."""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from clser.clients.clips import demo_clip
from clser.clients.commands import output
from clser.clients.commands.shell import Ending, Parser, parser, run, seconds, set_up_log
from clser.clients.console import Console
from clser.engine.api import Engine
from clser.engine.errors import FailedError
from clser.engine.ingest import IngestConfig
from clser.engine.logs import log
from clser.engine.sources import Source, SourceSettings, open_source
from clser.engine.sources.mic import list_devices

GRACE_S = 5.0  # for an output that is slow to take the last results

EPILOG = """exit codes: 0 done; 1 it failed while running; 2 a wrong argument, config or input; 3 something needed is
not there (device, model, port in use); 130 interrupted, after a clean end. Ctrl-C and SIGTERM end politely: whoever is
speaking still gets a final result; a second one ends at once."""


def _parser() -> Parser:
    made = parser(
        "clser-stream", "Hears which emotion voices carry, while they speak. Shows it here, and publishes it.", EPILOG
    )
    sound = made.add_argument_group("sound")
    sound.add_argument(
        "--device", action="append", metavar="SOURCE", dest="devices",
        help="where sound comes from: [NAME=]mic[:DEVICE] | [NAME=]file:PATH | [NAME=]stdin | zmq:ENDPOINT; "
        "several times for several streams (default: mic)",
    )  # fmt: skip
    sound.add_argument("--demo", action="store_true", help="play the clip that comes with the program, and end")
    sound.add_argument(
        "--pace", choices=("real", "fast"), default="real",
        help="files: at the pace of their sound, or as fast as the engine computes (default: real)",
    )  # fmt: skip
    sound.add_argument(
        "--rate", type=int, default=16_000, metavar="HZ", help="stdin: samples a second (default: 16000)"
    )
    sound.add_argument("--channels", type=int, default=1, metavar="N", help="stdin: channels (default: 1)")
    sound.add_argument(
        "--format", choices=("s16", "f32"), default="s16", help="stdin: raw little-endian samples (default: s16)"
    )
    sound.add_argument(
        "--duration", type=seconds, metavar="SECONDS", help="end after so long (default: at the sound's end)"
    )
    sound.add_argument("--list-devices", action="store_true", help="list the microphones and end")
    out = made.add_argument_group("output")
    out.add_argument(
        "--json", nargs="?", const="results", choices=("results", "all"), metavar="all",
        help="one result a line on standard output and nothing else; --json=all: messages of every kind",
    )  # fmt: skip
    out.add_argument(
        "--bind", metavar="ENDPOINT",
        help="where to publish: auto, a ZeroMQ endpoint such as tcp://127.0.0.1:5556, or '' for nowhere (default: auto, "
        "a socket in this user's runtime folder)",
    )  # fmt: skip
    out.add_argument(
        "--keys", metavar="DIR",
        help="a folder of CURVE keys (`clser-watch keys new DIR`): tcp sockets then let in those on its allow-list, from "
        "other machines too",
    )  # fmt: skip
    out.add_argument(
        "--wire", choices=("json", "msgpack", "psi"),
        help="how messages are written: JSON, MessagePack, or as Microsoft's \\psi reads them (default: json)",
    )  # fmt: skip
    engine = made.add_argument_group("engine")
    engine.add_argument(
        "--config", default="live", metavar="FILE", help="a shipped config or a YAML file (default: live)"
    )
    engine.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting; may be repeated"
    )
    engine.add_argument(
        "--model", metavar="NAME",
        help="emotion model: a name of `clser-models list` (shipped ones, and those in your own folder), an .onnx file, or a "
        "folder that `clser-models train` wrote (default: voice)",
    )  # fmt: skip
    engine.add_argument(
        "--compute", metavar="cpu|cuda:N", help="where the voice model runs; several devices with commas (default: cpu)"
    )
    engine.add_argument("--workers", type=int, metavar="N", help="worker processes, 1 to 64 (default: 1)")
    engine.add_argument(
        "--asr", metavar="auto|off|sphinx|whisper[:NAME]",
        help="who writes down what is said, so that the words count too: Sphinx (English only, extra `sphinx`), Whisper (extra "
        "`whisper`; NAME is a size such as base, a name on the hub or a folder), or auto, the best that is on this machine "
        "(default: auto; other configs than live: off)",
    )  # fmt: skip
    engine.add_argument(
        "--language",
        metavar="CODE",
        help="what is spoken, such as en (default: Whisper listens for it, Sphinx takes it for en)",
    )
    return made


def _overrides(given: argparse.Namespace) -> list[str]:
    """All flags that stand for a setting, as settings."""
    flags = {
        "bus.publish": given.bind,
        "bus.keys": given.keys,
        "bus.wire": given.wire,
        "model.voice": given.model,
        "pool.compute": given.compute,
        "pool.workers": given.workers,
        "asr.recogniser": given.asr,
        "asr.language": given.language,
    }
    return [*given.set, *(f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None)]


def _sources(given: argparse.Namespace, ingest: IngestConfig) -> list[Source]:
    settings = SourceSettings(
        pace=given.pace, rate_hz=given.rate, channels=given.channels, format=given.format,
        ingest=ingest,
    )  # fmt: skip
    specs: list[str] = list(given.devices or [])
    if given.demo:
        specs.append(f"demo=file:{demo_clip()}")
    if ingest.bind:
        specs.append(f"zmq:{ingest.bind}")
    return [open_source(spec, settings) for spec in specs or ["mic"]]


async def _stream(engine: Engine, sources: Sequence[Source], form: output.Form, duration_s: float | None) -> int:
    """Run until the sound ends, the time is over, or a signal asks for it. Every final is out when this returns."""
    ending = Ending()
    console = Console("clser-stream", model=engine.config.model.voice)
    poured: asyncio.Task[None] | None = None
    written = asyncio.Event()
    with output.owned(form, console):
        try:
            async with contextlib.AsyncExitStack() as stack:
                if not await _started(stack.enter_async_context(engine), ending):
                    return ending.code
                console.at(engine.endpoint or "not published", "ready")
                _tell_of_words(engine, form, console)
                messages = engine.messages(frames=form in ("console", "all"))
                poured = asyncio.create_task(output.pour(messages, form, console, written.set), name="output")
                await _until_over(engine, sources, ending, poured, duration_s)
        finally:
            if poured is not None:
                await _last_words(poured, written)
    if not poured.done():
        raise FailedError(f"standard output took nothing for {GRACE_S:.0f} s: the last results are lost")
    poured.result()
    return ending.code


async def _started(start: Coroutine[Any, Any, Engine], ending: Ending) -> bool:
    """Whether it started before somebody asked for the end: a large recogniser takes its time."""
    starting, asked = asyncio.create_task(start), asyncio.create_task(ending.wait())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    return False


def _tell_of_words(engine: Engine, form: output.Form, console: Console) -> None:
    """Who writes down what is said, once; where nobody does though somebody was looked for, what would help."""
    recogniser = engine.describe()["recogniser"]
    name, why = recogniser["name"] or "", recogniser["why"]
    if form != "console":
        log.info("recogniser", name=name or None, why=why)
        return
    console.writes(name)
    if not name and engine.config.asr.recogniser == "auto":
        console.note(f"no words: {why}")


async def _last_words(poured: "asyncio.Task[None]", written: asyncio.Event) -> None:
    """Wait until all is out, for as long as somebody goes on reading."""
    going = True
    while going and not poured.done():
        written.clear()
        more = asyncio.create_task(written.wait())
        done, _ = await asyncio.wait({poured, more}, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        more.cancel()
        going = bool(done)


async def _until_over(
    engine: Engine, sources: Sequence[Source], ending: Ending, poured: "asyncio.Task[None]", duration_s: float | None
) -> None:
    """Raises what made a source or the engine fail; the output's own end (a closed pipe) ends the rest."""
    feeding = [asyncio.create_task(source.run(engine), name=f"source {at}") for at, source in enumerate(sources)]
    watching = [
        asyncio.create_task(engine.run_until_failed(), name="watch"),
        asyncio.create_task(ending.wait(), name="signals"),
    ]
    sounding: asyncio.Future[list[None]] = asyncio.gather(*feeding)
    try:
        ends: set[asyncio.Future[Any]] = {sounding, poured, *watching}
        await asyncio.wait(ends, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        for over in (watching[0], sounding):
            if over.done():
                over.result()
    finally:
        for task in (*feeding, *watching):
            task.cancel()
        await asyncio.gather(*feeding, *watching, sounding, return_exceptions=True)


def _main() -> int:
    given = _parser().parse_args()
    if given.list_devices:
        print("\n".join(list_devices()) or "no microphones")
        return 0
    engine = Engine.from_config(given.config, *_overrides(given))
    set_up_log(given, engine.config.log.level)
    form = output.choose(given.json)
    return asyncio.run(_stream(engine, _sources(given, engine.config.ingest), form, given.duration))


def main() -> None:
    run(_main)


if __name__ == "__main__":
    sys.argv[0] = "clser-stream"
    main()
