"""A worker's loop: take a batch, compute it, answer. Started by the pool as `python -m clser.engine.worker ENDPOINT CONFIG PID`.

Networks are loaded and warmed up before `Ready` is said. The heartbeat comes from this very loop: a worker that is stuck
in a computation says nothing, which is how the pool finds out.
"""

import os
import signal
import sys
import time

import msgspec
import numpy as np
import zmq

from clser.engine import jobs
from clser.engine.backends import VadNetwork, VoiceModel, open_vad, open_voice
from clser.engine.errors import ClserError
from clser.engine.vad import VadConfig

BEAT_MS = 500


class WorkerConfig(msgspec.Struct, frozen=True):
    vad: VadConfig
    model: str
    compute: str


def warm_up(vad: VadNetwork, voice: VoiceModel) -> None:
    """The first calls of a network are its slowest; nobody waits for these."""
    for count in (1, 1, 4):
        rows = [jobs.Row(slot, 1, True) for slot in range(count)]
        vad.run(rows, np.zeros(count * vad.frame_samples, np.int16))
        rows = [jobs.Row(slot, 3, True) for slot in range(count)]
        voice.run(rows, np.zeros(3 * count * voice.card.frame_samples, np.int16))


def serve(socket: "zmq.Socket[bytes]", vad: VadNetwork, voice: VoiceModel, engine_pid: int) -> None:
    """Until told to stop, or until the engine is gone."""
    networks: dict[jobs.Lane, VadNetwork | VoiceModel] = {"vad": vad, "voice": voice}
    while True:
        if not socket.poll(BEAT_MS):
            if os.getppid() != engine_pid:
                return
            socket.send(jobs.encode(jobs.Beat()))
            continue
        head, *body = socket.recv_multipart()
        batch = jobs.decode_from_engine(head)
        if isinstance(batch, jobs.Stop):
            return
        began = time.perf_counter()
        numbers = networks[batch.lane].run(batch.rows, np.frombuffer(body[0], np.int16))
        busy_us = int((time.perf_counter() - began) * 1e6)
        answer = jobs.Answer(batch.number, batch.lane, busy_us)
        socket.send_multipart((jobs.encode(answer), np.ascontiguousarray(numbers, np.float32).data))


def main() -> int:
    endpoint, config_json, engine_pid = sys.argv[1:]
    config = msgspec.json.decode(config_json, type=WorkerConfig)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the engine decides when we stop
    context = zmq.Context(io_threads=1)
    socket = context.socket(zmq.PAIR)
    socket.linger = 1000
    socket.connect(endpoint)
    try:
        vad, voice = open_vad(config.vad), open_voice(config.model, config.compute)
        warm_up(vad, voice)
        socket.send(jobs.encode(jobs.Ready(vad.frame_samples, voice.card)))
        serve(socket, vad, voice, int(engine_pid))
    except ClserError as error:
        socket.send(jobs.encode(jobs.Broken(str(error), error.exit_code)))
        return error.exit_code
    except Exception as error:
        socket.send(jobs.encode(jobs.Broken(f"{type(error).__name__}: {error}", 1)))
        raise
    finally:
        context.destroy(linger=1000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
