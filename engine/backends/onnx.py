"""A streaming voice model in one ONNX file that describes itself (docs/models.md), run for many streams in one call.

Shapes: B rows, T frames, S samples, H heads.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime

from clser.engine.backends import Numbers, Slots, onnx_providers, row_frames
from clser.engine.errors import FailedError, GivenError, MissingError
from clser.engine.jobs import Row, VoiceCard
from clser.engine.records import SAMPLE_RATE_HZ, Samples
from clser.engine.shipped import digest, model_path
from clser.models.labels import PUBLISHED_AS

CONTRACT = 1


class OnnxVoice:
    def __init__(self, model: str, compute: str) -> None:
        path = model_path(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers are the unit of parallelism
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=onnx_providers(compute))
        except (GivenError, MissingError):
            raise
        except Exception as error:  # ONNX Runtime has no class of its own that covers a broken file
            raise GivenError(
                f"model {path}: ONNX Runtime cannot load it ({type(error).__name__}); export it again"
            ) from error
        self.card = self._read_card(path)
        self._check_contract(path)
        states = [value for value in self._session.get_inputs() if value.name.startswith("state_")]
        self._states = [value.name for value in states]
        self._outputs = ["logits_BTH", *(name.replace("state_", "next_", 1) for name in self._states)]
        self._slots = Slots([tuple(value.shape[1:]) for value in states])

    def _read_card(self, path: Path) -> VoiceCard:
        text = self._session.get_modelmeta().custom_metadata_map.get("clser")
        if text is None:
            raise GivenError(f"model {path}: it does not describe itself (no `clser` property); see docs/models.md")
        try:
            card = msgspec.convert(json.loads(text), VoiceCard)
        except (msgspec.ValidationError, json.JSONDecodeError) as error:
            raise GivenError(f"model {path}: its `clser` property is wrong: {error}") from error
        strangers = [head for head in card.heads if head not in PUBLISHED_AS]
        if card.contract != CONTRACT or card.sample_rate_hz != SAMPLE_RATE_HZ or strangers:
            raise GivenError(
                f"model {path}: contract {card.contract}, {card.sample_rate_hz} Hz, unknown heads {strangers}; "
                f"this engine runs contract {CONTRACT} at {SAMPLE_RATE_HZ} Hz"
            )
        return msgspec.structs.replace(card, digest=digest(path))

    def _check_contract(self, path: Path) -> None:
        """GivenError here, rather than ONNX Runtime's words in the middle of somebody's speech."""
        inputs = {value.name for value in self._session.get_inputs()}
        outputs = {value.name for value in self._session.get_outputs()}
        after = {name.replace("state_", "next_", 1) for name in inputs if name.startswith("state_")}
        lacking = ({"pcm_BS", "frames_B"} - inputs) | (({"logits_BTH"} | after) - outputs)
        if lacking or self.card.frame_samples <= 0 or not self.card.heads:
            raise GivenError(
                f"model {path}: it lacks {', '.join(sorted(lacking)) or 'frame_samples or heads'}; see docs/models.md"
            )

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        counts, sounds = row_frames(rows, pcm, self.card.frame_samples)
        out: list[Numbers] = [np.zeros((0, len(self.card.heads)), np.float32)] * len(rows)
        # rows of like length go together, so that padding never doubles the work
        sizes = np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
        for size in np.unique(sizes):
            members = np.flatnonzero((sizes == size) & (counts > 0)).tolist()
            if not members:  # ONNX Runtime aborts the process over a batch without frames
                continue
            said = self._call([rows[i] for i in members], counts[members], [sounds[i] for i in members])
            for i, logits_TH in zip(members, said, strict=True):
                out[i] = logits_TH[: counts[i]]
        return np.concatenate(out)

    def _call(
        self, rows: Sequence[Row], counts_B: "np.ndarray[tuple[int], np.dtype[np.int64]]", sounds: Sequence[Numbers]
    ) -> Numbers:
        frame = self.card.frame_samples
        pcm_BS = np.zeros((len(rows), int(counts_B.max()) * frame), np.float32)
        for i, sound in enumerate(sounds):
            pcm_BS[i, : sound.size] = sound.reshape(-1)
        states = dict(zip(self._states, self._slots.gather(rows), strict=True))
        logits_BTH, *after = self._session.run(self._outputs, {"pcm_BS": pcm_BS, "frames_B": counts_B, **states})
        self._slots.scatter(rows, after)
        assert isinstance(logits_BTH, np.ndarray)
        if not np.isfinite(logits_BTH).all():
            raise FailedError(
                f"model {self.card.name} answered with NaN or infinity: it is broken, or was exported wrongly"
            )
        return logits_BTH


def open_voice(model: str, compute: str) -> OnnxVoice:
    return OnnxVoice(model, compute)
