"""What a system answers for clips and texts after their last frame.

Letters: B rows, N asked, H heads, X what is known of a speaker.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clser.models.batches import Batch
from clser.models.encoders.hub_frames import HUB, is_hub
from clser.models.examples import NO_TEXT, Examples, TakeFeatures, Tokenise, ordered, pad, pad_ids
from clser.models.systems import FACES, WORDS
from clser.models.tensors import Sequences

Array = np.ndarray[Any, Any]
BATCH = 64
FITTED_ON = 512
"""So many clips tell what is usual."""


def logits_of(
    system: Any,
    examples: Examples,
    clips: Sequence[int],
    texts: Sequence[int] = (),
    *,
    known_NX: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Array:
    """[N, H], before any calibration. `clips` and `texts` go together row by row; empty, or -1: none."""
    asked = max(len(clips), len(texts))
    clip_N = np.array(clips if len(clips) else [-1] * asked, np.int64)
    text_N = np.array(texts if len(texts) else [NO_TEXT] * asked, np.int64)
    assert len(clip_N) == len(text_N) == asked
    lengths_N = np.zeros(asked, np.int64)
    if examples.clean is not None:
        lengths_N = np.where(clip_N >= 0, examples.clean.lengths[clip_N], 0)
    out = np.zeros((asked, len(examples.heads)), np.float32)
    with torch.inference_mode():
        for rows in ordered(lengths_N, BATCH):
            given: dict[str, Sequences] = {}
            if examples.clean is not None:
                given = sound_of(examples.clean, examples.ratios, clip_N[rows], lengths_N[rows])
            if examples.look is not None:
                given[FACES] = examples.faces(clip_N[rows])
            if examples.tokenise is not None:
                given[WORDS] = words_of(examples, text_N[rows])
            frames_B = torch.from_numpy(lengths_N[rows]) if examples.clean is not None else given[WORDS].length_B
            empty = torch.zeros(len(rows), 0)
            speaker_BX = None if known_NX is None else known_NX[rows]
            batch = Batch(given, frames_B, empty, empty, speaker_BX).to(torch.device(device))
            at_B1 = (batch.frames_B - 1).clamp_min(0)[:, None]
            out[rows] = answer(system, batch, at_B1)[:, -1].float().cpu().numpy()
    return out


def answer(system: Any, batch: Batch, at_BK: Tensor) -> Tensor:
    """[B, K, H] after those frames, or [B, 1, H] of a system that does not stream exactly."""
    state = system.start(len(batch.frames_B))
    if batch.speaker_BX is not None:
        e_BKX, _ = system.hear(batch.given, state, at_BK)
        told_BKH: Tensor = system.answer(e_BKX, batch.speaker_BX)
        return told_BKH
    logits_BKH, _ = system(batch.given, state, at_BK if system.streams == "exactly" else None)
    return logits_BKH


def sound_of(take: TakeFeatures, ratios: Mapping[str, int], clip_B: Array, frames_B: Array) -> dict[str, Sequences]:
    """The first frames of these clips (-1: none of any), by front."""
    given = {}
    longest = max(1, int(frames_B.max()))
    for name, ratio in ratios.items():
        features = take.by_front[name]
        begins = [int(features.starts[clip]) if clip >= 0 else 0 for clip in clip_B]
        parts = [features.features[b : b + n * ratio] for b, n in zip(begins, frames_B, strict=True)]
        given[name] = Sequences(pad(parts, longest * ratio), torch.from_numpy(frames_B * ratio))
    return given


def words_of(examples: Examples, text_B: Array) -> Sequences:
    """What these texts (-1: none) are cut into."""
    assert examples.tokenise is not None
    there = [int(n) for n in text_B if n != NO_TEXT]
    cut = {}
    if there:
        ids, length = examples.tokenise([examples.texts[n].text for n in there])
        cut = {n: row[: int(many)] for n, row, many in zip(there, ids, length, strict=True)}
    return pad_ids([cut.get(int(n)) for n in text_B], examples.tokenise)


def fit_inputs(system: Any, examples: Examples, seed: int = 0) -> None:
    """Lets the system see what is usual in its training data, where it asks to."""
    if not hasattr(system, "fit_inputs") or not examples.takes or not len(examples.indices):
        return
    random = np.random.default_rng(seed)
    chosen = random.choice(np.array(examples.indices), min(FITTED_ON, len(examples.indices)), replace=False)
    take = examples.takes[0]
    with torch.no_grad():
        system.fit_inputs(sound_of(take, examples.ratios, chosen, take.lengths[chosen]))


def known_of(system: Any, take: TakeFeatures, ratios: Mapping[str, int]) -> Tensor:
    """[clips, X]: what each clip of the take tells of its speaker."""
    parts: dict[int, Tensor] = {}
    with torch.inference_mode():
        for rows in ordered(take.lengths, BATCH):
            at_B1 = torch.from_numpy(np.maximum(take.lengths[rows] - 1, 0))[:, None]
            said = system.tell(sound_of(take, ratios, rows, take.lengths[rows]), at_B1)[:, 0]
            parts |= {int(row): line for row, line in zip(rows, said, strict=True)}
    return torch.stack([parts[row] for row in range(len(take.lengths))]).clone()


def tokeniser_of(name: str) -> Tokenise:
    """What cuts texts up for a system whose `words` is that name; of `hub:NAME` the frames of a pretrained encoder."""
    if not is_hub(name):
        from clser.models.encoders.text import tokeniser  # noqa: PLC0415 - only for systems that read

        return tokeniser(name)
    from clser.models.encoders.pretrained_text import open_text  # noqa: PLC0415 - loads transformers

    encoder = open_text(name.removeprefix(HUB)).eval()

    def frames(texts: Sequence[str]) -> Any:
        with torch.inference_mode():
            return tuple(part.clone() for part in encoder(*encoder.tokenise(texts)))

    return frames
