"""Anything at any time: packets, gaps, muting, speakers, workers and recognisers that come and go. What must hold holds."""

import asyncio
import contextlib
import random
from itertools import pairwise
from typing import Any

import pytest
from fakes import CARD, KNOWING, Rig, run, sound
from scribes import FakeScribes

from clser.engine.errors import OverloadedError
from clser.engine.records import Result, Speech

STREAMS = 3
STEPS = 200


class Chaos:
    """An engine, and somebody without a plan."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.scribes = FakeScribes(workers=self.draw.choice((1, 2)))
        self.rig = Rig(
            joins="opinions", scribes=self.scribes, workers=self.draw.choice((1, 2)),
            card=self.draw.choice((CARD, KNOWING)),
            overload={"up_s": 0.4, "down_s": 0.5, "wary_s": 0.0},
            asr={"late_s": self.draw.choice((0.5, 3.0)), "wait_ms": self.draw.choice((0, 400)), "silent_s": 3.0},
            segment={"longest_ms": self.draw.choice((3000, 15000))},
        )  # fmt: skip
        self.late_s = 0.0
        self.rig.engine.waits.append(lambda: self.late_s)
        self.streams: dict[int, Any] = {}
        self.closing: list[asyncio.Task[None]] = []
        self.opened = 0
        self.sounds = [self._speech(seed * 10 + number) for number in range(STREAMS)]
        self.at = [0] * STREAMS

    def _speech(self, seed: int) -> Any:
        script = []
        for _ in range(12):
            silence = self.draw.choice((180, 250, 400, 900))
            script += [(False, self.draw.randint(50, 800)), (True, self.draw.randint(60, 5000)), (False, silence)]
        return sound(script, seed)

    def feed(self, number: int) -> None:
        if number not in self.streams:
            if self.draw.random() < 0.1:
                self.opened += 1
                with contextlib.suppress(OverloadedError):
                    self.streams[number] = self.rig.engine.open(
                        f"s{self.opened}", speaker=self.draw.choice((None, "x"))
                    )
            return
        stream, size = self.streams[number], self.draw.choice((800, 1600, 3200))
        pcm = self.sounds[number][self.at[number] : self.at[number] + size]
        self.at[number] = (self.at[number] + size) % (len(self.sounds[number]) - 8000)
        lost = self.draw.choice((100, 5000, 40_000)) if self.draw.random() < 0.02 else 0
        stream.push(pcm, start_sample=stream.next_sample + lost)
        chance = self.draw.random()
        if chance < 0.01:
            stream.mute(self.draw.random() < 0.5)
        elif chance < 0.02:
            stream.new_speaker(self.draw.choice((None, "y")))
        elif chance < 0.03:
            self.closing.append(asyncio.create_task(self.streams.pop(number).close()))

    def happen(self) -> None:
        """Something else."""
        chance = self.draw.random()
        workers, scribes = self.rig.pool, self.scribes
        down = [n for n, worker in enumerate(scribes._workers) if not worker.up]
        if chance < 0.05:
            scribes.held = not scribes.held
        elif chance < 0.3:
            scribes.answer()
        elif chance < 0.34 and not down:
            scribes.lose(0)
        elif chance < 0.4 and down:
            scribes.come_back(down[0])
        elif chance < 0.42 and workers._workers[0].up:
            workers.lose(0)
        elif chance < 0.5 and not workers._workers[0].up:
            workers.come_back(0)
        elif chance < 0.52:
            workers.held ^= {self.draw.choice(("both", "voice"))}
        elif chance < 0.58:
            workers.release()
        elif chance < 0.6:
            self.late_s = self.draw.choice((0.0, 0.5))
        elif chance < 0.62:
            scribes.mute = not scribes.mute
        elif chance < 0.64:
            self.rig.engine.reload((f"asr.wait_ms={self.draw.choice((0, 400))}",))

    async def calm(self) -> None:
        """All comes back, and all is closed."""
        self.late_s, self.scribes.mute = 0.0, False
        for pool in (self.scribes, self.rig.pool):
            for number, worker in enumerate(pool._workers):
                if not worker.up:
                    pool.come_back(number)
            pool.release()
        self.closing += [asyncio.create_task(stream.close()) for stream in self.streams.values()]
        for _ in range(100):
            await self.rig.clock.advance(0.1)
        assert all(task.done() for task in self.closing), "closing returns"
        await asyncio.gather(*self.closing)


def check(rig: Rig) -> None:
    by_utterance: dict[tuple[str, int], list[Result]] = {}
    for result in rig.of(Result):
        by_utterance.setdefault((result.stream, result.utterance), []).append(result)
    for results in by_utterance.values():
        stages = [result.stage for result in results]
        assert stages.count("final") == 1
        assert stages.count("amended") <= 1
        assert "final" in stages[-2:] and stages[-1] in ("final", "amended")
        assert all(a.revision < b.revision for a, b in pairwise(results))
        texts = [result.text for result in results if result.text is not None]
        assert all(b.stable.startswith(a.stable) for a, b in pairwise(texts)), "what was stable stays"
    ended = {(m.stream, m.utterance) for m in rig.of(Speech) if m.event == "ended" and m.reason != "too_short"}
    assert ended == set(by_utterance)
    for stream in {stream for stream, _ in by_utterance}:
        finals = [result.utterance for result in rig.finals(stream)]
        assert finals == sorted(finals)
        last = [results[-1] for (name, _), results in sorted(by_utterance.items()) if name == stream]
        times = [result.text.times for result in last if result.text is not None and result.text.times]
        assert all(b[0][0] >= a[-1][1] - 0.13 for a, b in pairwise(times)), "no word is written twice"


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 20, 71, 81])
def test_whatever_happens(seed: int) -> None:
    async def main() -> None:
        chaos = Chaos(seed)
        async with chaos.rig as rig:
            for _ in range(STEPS):
                for number in range(STREAMS):
                    chaos.feed(number)
                chaos.happen()
                await rig.clock.advance(chaos.draw.choice((0.0, 0.05, 0.1, 0.2)))
            await chaos.calm()
            check(rig)
            totals = rig.pipeline.totals()
            assert totals["finals"] == len(rig.finals())
            assert totals["streams"] == 0
            assert not any(desk.streams or len(desk.waiting) for desk in rig.pipeline.recognition._desks)

    run(main(), 60.0)
