"""A trained text system as one ONNX file: numbers of grams in, calibrated logits and a vector of the text out.

Letters: B texts, N grams of a text, E kinds of text, D numbers of a text, H heads.

Its inputs are `ids_BN` of int64 (what `clser.models.words_live.numbers` gives; 0: padding) and `kind_BE` (one for the kind of
text that each is known to be; zeros: not known), its outputs `logits_BH` and `vector_BD`. The metadata property `clser`
says what `CONTRACT`, `heads`, `kinds` and the licence are.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clser.models.evaluate import softmax
from clser.models.labels import PUBLISHED_AS
from clser.models.onnx_files import OPSET, player, put
from clser.models.saved import Trained
from clser.models.words_live import CONTRACT, numbers

PARITY = 1e-4
TEXTS = (
    ("I am so happy for you!", "no"),
    ("", "Ich habe Angst, dass es zu spät ist", "很高兴认识你"),
    ("what?! you did what", "so it goes", "", "a", "мне так грустно сегодня и завтра тоже"),
)
"""Rows of unlike lengths, some without a word."""


class Exported(NamedTuple):
    """What came of an export."""

    parity: float
    """The largest difference of a probability from torch's."""
    size_bytes: int


class _Played(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    def __init__(self, system: Any, about: Trained) -> None:
        super().__init__()
        self.system, self.temperature = system, about.calibration.temperature
        offsets = torch.tensor(about.calibration.offsets or (0.0,) * len(system.heads))
        self.register_buffer("offset_H", offsets, persistent=False)

    def forward(self, ids_BN: Tensor, kind_BE: Tensor) -> tuple[Tensor, Tensor]:
        told = self.system.answer(self.system.say(ids_BN), kind_BE)
        return told.logits_BH / self.temperature + self.offset_H, told.vector_BD


def export(system: Any, path: Path, about: Trained) -> Exported:
    """Writes the file and plays it beside torch; one that answers otherwise is refused, and `path` left as it was."""
    was_training = system.training
    net = _Played(system.cpu().eval(), about).eval()
    try:
        worst = put(path, lambda at: _trace(net, at), said_of(system, about), lambda at: parity(net, at), PARITY)
    finally:
        system.train(was_training)
    return Exported(worst, path.stat().st_size)


def said_of(system: Any, about: Trained) -> dict[str, Any]:
    """What the file says of itself."""
    assert all(head in PUBLISHED_AS for head in system.heads)
    return {
        "contract": CONTRACT,
        "kind": "words",
        "name": about.system,
        "version": about.version,
        "heads": list(system.heads),
        "words": system.words,
        "kinds": list(system.config.collections),
        "vector": system.middle.out_features,
        "licence": about.licence,
        "trained_on": list(about.texts),
    }


def parity(net: _Played, path: Path, texts: Sequence[Sequence[str]] = TEXTS) -> float:
    """The largest difference of a probability, and of a number of the vectors, between torch and the file."""
    session = player(path)
    worst, kinds = 0.0, len(net.system.each)
    for rows in texts:
        ids_BN = numbers(rows)
        kind_BE = np.eye(kinds, dtype=np.float32)[np.arange(len(rows)) % kinds] * (np.arange(len(rows)) % 2)[:, None]
        kind_BE = kind_BE.astype(np.float32)
        with torch.no_grad():
            logits, vector = net(torch.from_numpy(ids_BN), torch.from_numpy(kind_BE))
        got, told = session.run(None, {"ids_BN": ids_BN, "kind_BE": kind_BE})
        worst = max(worst, float(np.abs(softmax(logits.numpy()) - softmax(got)).max()))
        worst = max(worst, float(np.abs(vector.numpy() - told).max()))
    return worst


def _trace(net: _Played, path: Path) -> None:
    ids_BN = numbers(TEXTS[1])
    kind_BE = torch.zeros(len(ids_BN), len(net.system.each))
    axes = {"ids_BN": {0: "B", 1: "N"}, "kind_BE": {0: "B"}, "logits_BH": {0: "B"}, "vector_BD": {0: "B"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is called deprecated
        torch.onnx.export(
            net, (torch.from_numpy(ids_BN), kind_BE), str(path), input_names=["ids_BN", "kind_BE"],
            output_names=["logits_BH", "vector_BD"],
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
