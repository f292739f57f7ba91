import struct
from pathlib import Path

import msgspec
import numpy as np
import zmq
from made import ledger

from clser.bench.load import Microphone, name_of, read_ledger
from clser.engine.records import STREAM_NAME
from clser.engine.sources.zmq import read_header


def test_a_filled_in_header_is_what_the_engine_reads() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        mic = Microphone(context, "inproc://nobody", name_of(17))
        for sample, captured_us in ((0, 1), (320, 1_790_000_000_000_000)):
            struct.pack_into(">Q", mic.header, mic.start_at, sample)
            struct.pack_into(">Q", mic.header, mic.captured_at, captured_us)
            header = read_header(bytes(mic.header))
            assert (header.op, header.stream) == ("audio", "load-17")
            assert (header.start_sample, header.captured_unix_us) == (sample, captured_us)
    finally:
        context.destroy(linger=0)
    assert STREAM_NAME.fullmatch(name_of(17))


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    book = ledger(streams=3)
    np.savez(tmp_path / "ledger.npz", **msgspec.structs.asdict(book))
    again = read_ledger(tmp_path / "ledger.npz")
    assert np.array_equal(book.sent_us, again.sent_us)
    assert np.array_equal(book.start_us, again.start_us)
    assert (book.blocked, book.cpu_s, book.closed) == (again.blocked, again.cpu_s, again.closed)
