"""A streaming voice model in one ONNX file that describes itself (docs/models.md), run for many streams in one call.

Shapes: B rows, T frames, S samples, X numbers that tell of a speaker, H heads.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clser.engine.backends import Numbers, Slots, Speakers, padded, run_alike
from clser.engine.backends.card import read_card
from clser.engine.backends.devices import is_device_error, onnx_providers
from clser.engine.backends.initialisers import patched
from clser.engine.backends.windowed import Windowed
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import Row
from clser.engine.making import Made
from clser.engine.records import Samples
from clser.engine.shipped import model_path
from clser.models.delta import Delta, parsed

SPEAKER, HEARD = "speaker_BX", "heard_BX"


class OnnxVoice:
    def __init__(self, model: str, compute: str) -> None:
        self._path = path = Path(model) if model.endswith(".safetensors") else model_path(model)
        if path.suffix == ".safetensors":
            raise GivenError(f"model {model!r}: ONNX Runtime plays .onnx files; set model.backend=torch for this one")
        self._compute = compute
        self._base = self._session = _open_session(path, compute)
        self.card = read_card(self._session.get_modelmeta().custom_metadata_map.get("clser"), path)
        self._base_card = self.card
        self._delta: Delta | None = None
        self._check_contract(path)
        self._windowed = None if self.card.streams == "exactly" else Windowed(self.card, self._whole)
        states = [value for value in self._session.get_inputs() if value.name.startswith("state_")]
        self._states = [value.name for value in states]
        self._outputs = ["logits_BTH", *(name.replace("state_", "next_", 1) for name in self._states)]
        self._slots = Slots([tuple(value.shape[1:]) for value in states])
        self._speakers = Speakers(self.card.speaker_numbers) if self.card.speaker_numbers else None
        if self._speakers is not None:
            self._outputs.append(HEARD)

    def _check_contract(self, path: Path) -> None:
        """GivenError here, rather than ONNX Runtime's words in the middle of somebody's speech."""
        inputs = {value.name for value in self._session.get_inputs()}
        outputs = {value.name for value in self._session.get_outputs()}
        after = {name.replace("state_", "next_", 1) for name in inputs if name.startswith("state_")}
        exactly = self.card.streams == "exactly"
        promised = {"logits_BTH" if exactly else "logits_B1H"} | after
        lacking = ({"pcm_BS", "frames_B"} - inputs) | (promised - outputs)
        if after and not exactly:
            raise GivenError(f"model {path}: it streams by {self.card.streams} and has a state; see docs/models.md")
        sizes = [value.shape[1:] for value in self._session.get_inputs() if value.name == SPEAKER]
        told = self.card.speaker_numbers
        if sizes != ([[told]] if told else []) or (HEARD in outputs) != (told > 0):
            raise GivenError(
                f"model {path}: its speaker_numbers are {told}, and it has no {SPEAKER} of that size, or no {HEARD}, or has them "
                "all the same; see docs/models.md"
            )
        if lacking or self.card.frame_samples <= 0 or not self.card.heads:
            raise GivenError(
                f"model {path}: it lacks {', '.join(sorted(lacking)) or 'frame_samples or heads'}; see docs/models.md"
            )

    def know(self, slots: Sequence[int], sums: Numbers) -> None:
        assert self._speakers is not None, "the card says that it knows nobody"
        self._speakers.know(slots, sums)

    def told(self, slots: Sequence[int]) -> Numbers:
        assert self._speakers is not None, "the card says that it knows nobody"
        return self._speakers.told(slots)

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        if self._windowed is not None:
            return self._windowed.run(rows, pcm)
        return run_alike(rows, pcm, self.card, self._call)

    def adapting(self, delta: bytes) -> Made:
        """The graph with other weights in it. They are replaced in the file's bytes, where ONNX Runtime, which folds weights
        into one another as it opens a file, has not touched them yet."""
        session, card, about = self._base, self._base_card, None
        if delta:
            about, kept = parsed(delta, "the delta")
            if about.heads != card.heads:
                raise GivenError(
                    f"this delta is for a system {about.system} with {', '.join(about.heads)}; {card.name} has other classes"
                )
            session = _open_session(self._path, self._compute, patched(self._path.read_bytes(), about, kept))
            digest = about.names(card.digest)
            card = msgspec.structs.replace(card, digest=digest, abstain_below=about.abstain_below)
            _warm(session, card.frame_samples)

        def put() -> None:
            forget = any(one is not None and one.tells_anew for one in (self._delta, about))
            self._session, self.card, self._delta = session, card, about
            if forget and self._speakers is not None:
                self._speakers.forget()

        return card, put

    def _calibrated(self, logits_XH: Numbers) -> Numbers:
        """As the delta says: the file's own calibration is part of its graph."""
        if self._delta is None or not self._delta.recalibrates:
            return logits_XH
        return self._delta.calibrated(logits_XH)

    def _whole(self, rows: Sequence[Row], counts_B: NDArray[np.int64], sounds: list[Numbers]) -> Numbers:
        """One answer for all the sound of each row."""
        given = {"pcm_BS": padded(sounds), "frames_B": counts_B}
        (logits_B1H,) = self._session.run(["logits_B1H"], given)
        assert isinstance(logits_B1H, np.ndarray)
        return self._calibrated(logits_B1H)

    def _call(self, rows: Sequence[Row], counts_B: NDArray[np.int64], sounds: list[Numbers]) -> Numbers:
        pcm_BS = padded(sounds)
        states = dict(zip(self._states, self._slots.gather(rows), strict=True))
        given = {"pcm_BS": pcm_BS, "frames_B": counts_B, **states}
        if self._speakers is not None:
            given[SPEAKER] = self._speakers.of(rows)
        logits_BTH, *after = self._session.run(self._outputs, given)
        if self._speakers is not None:
            self._speakers.hear(rows, after.pop())
        self._slots.scatter(rows, after)
        assert isinstance(logits_BTH, np.ndarray)
        return self._calibrated(logits_BTH)


def _warm(session: onnxruntime.InferenceSession, frame_samples: int) -> None:
    """The first call is the slowest; nobody waits for this one."""
    given = {"pcm_BS": np.zeros((1, 3 * frame_samples), np.float32), "frames_B": np.array([3], np.int64)}
    for value in session.get_inputs():
        if value.name not in given:
            given[value.name] = np.zeros((1, *value.shape[1:]), np.float32)
    session.run(None, given)


def _open_session(path: Path, compute: str, data: bytes | None = None) -> onnxruntime.InferenceSession:
    """`data`: what is to be taken for the file's bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers are the unit of parallelism
    options.log_severity_level = 3
    providers = onnx_providers(compute)
    try:
        # without its own fallback, which would go on on the CPU and tell nobody
        session = onnxruntime.InferenceSession(data or str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime has no class of its own that covers a broken file
        if is_device_error(error):
            raise MissingError(f"compute {compute!r}: ONNX Runtime cannot use that device: {error}") from error
        raise GivenError(
            f"model {path}: ONNX Runtime cannot load it ({type(error).__name__}); export it again"
        ) from error
    if len(providers) > 1 and session.get_providers()[0] == "CPUExecutionProvider":
        raise MissingError(
            f"compute {compute!r}: ONNX Runtime could not load its CUDA provider, and says why on standard error; "
            "`clser-models doctor` says what is missing"
        )
    return session


def open_voice(model: str, compute: str, precision: str = "full") -> OnnxVoice:
    del precision  # it is the file's own
    return OnnxVoice(model, compute)
