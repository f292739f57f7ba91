"""The engine in a process of its own, fed over ZeroMQ: what the benchmarks measure.

Started as `python -m clser.bench.serve INGEST CONFIG [section.key=value ...]`; SIGTERM drains it.
"""

import asyncio
import contextlib
import os
import signal
import sys

from clser.engine.api import Engine
from clser.engine.errors import ClserError
from clser.engine.sources import SourceSettings, open_source


async def serve(endpoint: str, config: str, overrides: list[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides when we stop
    parent = os.getppid()
    async with Engine.from_config(config, *overrides) as engine:
        source = open_source(f"zmq:{endpoint}", SourceSettings(ingest=engine.config.ingest))
        running = [asyncio.create_task(source.run(engine)), asyncio.create_task(engine.run_until_failed())]
        try:
            while not stop.is_set() and os.getppid() == parent and not any(task.done() for task in running):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.5)
            for task in running:
                if task.done():
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def main() -> int:
    endpoint, config, *overrides = sys.argv[1:]
    try:
        asyncio.run(serve(endpoint, config, overrides))
    except ClserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
