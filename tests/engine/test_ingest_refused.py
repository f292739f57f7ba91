"""What comes over the socket and cannot be taken: wrong layouts, packets, headers, strangers."""

from pathlib import Path

import numpy as np
import pytest
import zmq
from fakes import Rig, run, sound
from hypothesis import given
from hypothesis import strategies as st
from robots import listening

from clser.engine.errors import GivenError, MissingError
from clser.engine.sources import SourceSettings, open_source
from clser.engine.sources.zmq import MOST_HEADER_BYTES, MOST_TOLD, read_header


@pytest.mark.parametrize(
    "layout",
    [
        {"sample_rate_hz": 96_000},
        {"sample_rate_hz": 0},
        {"sample_rate_hz": 2**53},
        {"channels": 0},
        {"channels": 9},
        {"channels": 2**53},
    ],
)
def test_a_layout_that_is_not_taken_is_refused_and_costs_no_stream(tmp_path: Path, layout: dict[str, int]) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot()
            assert (await robot.ask("open", "a", **layout))[0] == "refused"
            assert await robot.ask("open", "a") == ("opened", "")
            assert (await robot.ask("open", "a", **layout))[0] == "refused"
            assert await robot.ask("close", "a") == ("closed", ""), "the stream that it had is still open"

    run(main())


def test_wrong_packets_are_refused_with_a_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    wrong: list[tuple[list[bytes], str]] = [
        ([b""], "not a header"),
        ([b"{}", *[b"x"] * 49], "50 frames"),
        ([b'{"op":"dance","stream":"a"}'], "not a header"),
        ([b'{"op":"open","stream":"no spaces"}'], "1 to 64"),
        ([b'{"op":"open","stream":"_engine"}'], "engine's own"),
        ([b'{"op":"open","stream":"%s"}' % (b"n" * 1000)], "1 to 64"),
        ([b'{"op":"audio","stream":"stranger"}', b"\0\0"], "not open"),
        ([b'{"op":"audio","stream":"a"}', b"\0\0\0"], "whole samples"),
        ([b'{"op":"audio","stream":"a"}', bytes(64_004)], "at most a second"),
        ([b'{"op":"audio","stream":"a","start_sample":9007199254740992}', b"\0\0\0\0"], "no gap"),
        ([b'{"op":"audio","stream":"a"}', np.array([np.nan], "<f4").tobytes()], "NaN"),
        ([b'{"op":"audio","stream":"a"}', np.array([np.inf], "<f4").tobytes()], "NaN"),
    ]

    async def main() -> None:
        async with listening(tmp_path) as place:
            robot = place.robot()
            assert await robot.ask("open", "a", format="f32") == ("opened", "")
            for frames, reason in wrong:
                robot.socket.send_multipart(frames)
                op, why = await robot.reply()
                assert op == "refused"
                assert reason in why
                await place.rig.clock.advance(1.1)
            speech = (sound([(False, 300), (True, 900), (False, 500)]) / np.float32(32768)).astype("<f4")
            robot.send("audio", "a", speech[:16_000].tobytes(), start_sample=0)
            robot.send("audio", "a", speech[16_000:].tobytes(), start_sample=16_000)
            assert await robot.ask("close", "a") == ("closed", "")
            assert len(place.rig.finals("a")) == 1
            assert place.ingest.refused == len(wrong)

    run(main())


def test_sound_for_a_thousand_names_is_refused_without_being_remembered_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as place:
            for number in range(MOST_TOLD + 500):
                place.ingest._receive([b"robot", b'{"op":"audio","stream":"%d"}' % number])
            assert place.ingest.refused == MOST_TOLD + 500
            assert len(place.ingest._told_s) == MOST_TOLD

    run(main())


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=20).map(lambda tail: b"{" + tail)))
def test_any_bytes_are_a_header_or_refused(frame: bytes) -> None:
    try:
        read_header(frame)
    except GivenError:
        return


def test_a_huge_header_is_refused_unread() -> None:
    with pytest.raises(GivenError, match="at most 4096"):
        read_header(b"{" * (MOST_HEADER_BYTES + 1))


def test_strangers_cannot_be_let_in_and_a_taken_place_is_said() -> None:
    async def main() -> None:
        async with Rig() as rig:
            with pytest.raises(GivenError, match="without keys"):
                await open_source("zmq:tcp://0.0.0.0:5557", SourceSettings()).run(rig.engine)
            with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
                port = socket.bind_to_random_port("tcp://127.0.0.1")
                with pytest.raises(MissingError, match="stop what uses it"):
                    await open_source(f"zmq:tcp://127.0.0.1:{port}", SourceSettings()).run(rig.engine)

    run(main())
