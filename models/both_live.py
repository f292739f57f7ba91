"""Plays the ONNX file of `both`, without torch: what voice and words said in, one opinion and what each counted out.

Letters: B rows, H heads of the voice, C published classes, X numbers of a text.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clser.models.errors import GivenError, MissingError

Array = np.ndarray[Any, Any]
CONTRACT = 1
KEY, KIND = "clser", "both"
INPUTS = ("voice_BH", "words_BC", "vector_BX", "words_there_B", "suspect_B")
OUTPUTS = ("logits_BH", "weights_B2")


class Fused(NamedTuple):
    """What voice and words say together."""

    logits_BH: Array
    weights_B2: Array
    """How much the voice and the words counted; 1 together."""


class Fuser:
    """Keeps nothing between calls."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime  # noqa: PLC0415 - a runtime, for whoever plays alone

        if not path.is_file():
            raise MissingError(f"{path}: there is no such file; give the .onnx that joins voice and words")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.about: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
        if self.about.get("kind") != KIND or self.about.get("contract", 0) > CONTRACT:
            raise GivenError(
                f"{path}: it joins no voice and words by contract {CONTRACT}; "
                "make one with `python -m clser.models.both_run`"
            )
        self.heads: tuple[str, ...] = tuple(self.about["heads"])
        self.words_heads: tuple[str, ...] = tuple(self.about["words_heads"])
        self.vector = int(self.about["vector"])

    def fuse(self, voice_BH: Array, words_BC: Array, vector_BX: Array, words_there_B: Array, suspect_B: Array) -> Fused:
        """Calibrated logits of either side, heads in the order of `heads` and `words_heads`. Where `words_there_B` is 0 the
        answer is the voice's own, whatever stands in the words' place."""
        given = (voice_BH, words_BC, vector_BX, words_there_B, suspect_B)
        floats = (np.ascontiguousarray(part, np.float32) for part in given)
        return Fused(*self._session.run(None, dict(zip(INPUTS, floats, strict=True))))
