"""WebRTC's voice activity network: fifty times cheaper than Silero's, and easily fooled by noise.

It says yes or no; the share of yes among the last five frames stands for a probability.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import webrtcvad

from clser.engine.backends import Numbers
from clser.engine.jobs import Row
from clser.engine.records import SAMPLE_RATE_HZ, Samples
from clser.engine.vad import VadConfig

FRAME = 320  # 20 ms
REMEMBERED = 5


class _Stream:
    def __init__(self, mode: int) -> None:
        self.network = webrtcvad.Vad(mode)
        self.recent: deque[bool] = deque(maxlen=REMEMBERED)


class Webrtc:
    frame_samples = FRAME
    state_size = 0  # its library keeps that to itself

    def __init__(self, mode: int) -> None:
        self._mode = mode
        self._streams: dict[int, _Stream] = {}

    def states(self, slots: Sequence[int]) -> Numbers:
        return np.zeros((len(slots), 0), np.float32)

    def restore(self, slots: Sequence[int], states: Numbers) -> None:
        assert not states.size, "it hands no state out, so there is none to go on from"

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        frames = iter(pcm.reshape(-1, FRAME))
        said: list[float] = []
        for row in rows:
            if row.fresh or row.slot not in self._streams:
                self._streams[row.slot] = _Stream(self._mode)
            stream = self._streams[row.slot]
            for _ in range(row.frames):
                stream.recent.append(stream.network.is_speech(next(frames).tobytes(), SAMPLE_RATE_HZ))
                said.append(sum(stream.recent) / len(stream.recent))
        return np.array(said, np.float32)


def open_vad(config: VadConfig) -> Webrtc:
    return Webrtc(config.webrtc_mode)
