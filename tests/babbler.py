"""A worker whose first life says what no worker says; from the second on it answers, and hears silence in everything.

    babbler.py FOLDER -m clser.engine.worker ENDPOINT CONFIG PID

`FOLDER/says` holds its words, messages of frames in hex; `FOLDER/lived` tells a second life from the first.
"""

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import zmq

from clser.engine import jobs
from clser.models.labels import HEADS

CARD = jobs.VoiceCard("babbler", "1", 16_000, 320, HEADS, 0.5, 0.0, "circumplex")


def answer(batch: jobs.Batch) -> list[bytes]:
    frames = sum(row.frames for row in batch.rows)
    numbers = np.zeros(frames * (1 if batch.lane == "vad" else len(HEADS)), np.float32)
    return [jobs.encode(jobs.Answer(batch.number, batch.lane, 1)), numbers.tobytes()]


def main() -> None:
    folder, endpoint, engine_pid = Path(sys.argv[1]), sys.argv[4], int(sys.argv[6])
    words = [] if (folder / "lived").exists() else msgspec.json.decode((folder / "says").read_bytes())
    (folder / "lived").touch()
    socket = zmq.Context().socket(zmq.PAIR)
    socket.connect(endpoint)
    socket.send(jobs.encode(jobs.Ready(512, CARD)))
    while os.getppid() == engine_pid:
        if not socket.poll(200):
            socket.send(jobs.encode(jobs.Beat()))
            continue
        batch = jobs.decode_from_engine(socket.recv_multipart()[0])
        if isinstance(batch, jobs.Stop):
            return
        for message in words or [[frame.hex() for frame in answer(batch)]]:
            socket.send_multipart([bytes.fromhex(frame) for frame in message])


if __name__ == "__main__":
    main()
