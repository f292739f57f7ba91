"""Plays a text model's ONNX file, without torch: a text in, its probabilities and its vector out.

Letters: B texts, N grams of a text, D numbers of a text, H heads.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clser.models.encoders.words import ragged
from clser.models.errors import GivenError, MissingError

Array = np.ndarray[Any, Any]
CONTRACT = 1
KEY = "clser"


class Read(NamedTuple):
    """What is known of some texts."""

    logits_BH: Array
    """Calibrated: their softmax is the probability."""
    vector_BD: Array


def numbers(texts: Sequence[str]) -> Array:
    """[B, N], one text's grams a row, zeros behind."""
    flat, starts = ragged(texts)
    many = np.diff(starts)
    ids_BN = np.zeros((len(texts), max(1, int(many.max(initial=0)))), np.int64)
    ids_BN[np.arange(ids_BN.shape[1]) < many[:, None]] = flat
    return ids_BN


class Reader:
    """A text model. A text that grows is read anew each time: nothing is kept between calls."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime  # noqa: PLC0415 - a runtime, for whoever plays alone

        if not path.is_file():
            raise MissingError(f"{path}: there is no such file; give the .onnx of a text model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.about: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
        if self.about.get("kind") != "words" or self.about.get("contract", 0) > CONTRACT:
            raise GivenError(
                f"{path}: it is no text model of contract {CONTRACT}; export one with `clser-models train --config words`"
            )
        self.heads: tuple[str, ...] = tuple(self.about["heads"])
        self.kinds: tuple[str, ...] = tuple(self.about["kinds"])
        """Of texts: the collections it was trained on."""

    def read(self, texts: Sequence[str], kind: str = "") -> Read:
        """All of the texts at once; one without a word gets the prior. `kind`: one of `kinds`, where that is known."""
        if kind and kind not in self.kinds:
            raise GivenError(f"kind {kind!r}: this text model knows {', '.join(self.kinds)}")
        kind_BE = np.zeros((len(texts), len(self.kinds)), np.float32)
        if kind:
            kind_BE[:, self.kinds.index(kind)] = 1.0
        return Read(*self._session.run(None, {"ids_BN": numbers(texts), "kind_BE": kind_BE}))
