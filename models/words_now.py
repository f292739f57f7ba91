"""What a system is given of words that are said now: texts in, its `Sequences` out, as training made them.

Letters: B rows, L words or tokens, X whatever stands for one: numbers of its grams, or an encoder's D.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from clser.models.encoders.hub_frames import HUB, hub_width, is_hub
from clser.models.encoders.text import tokeniser
from clser.models.encoders.words import words
from clser.models.examples import pad_ids
from clser.models.tensors import Sequences


def no_words(kind: str) -> Tensor:
    """[1, 1, X]: what pads a row without words. Loads no encoder, but wants its checkpoint to be here."""
    if is_hub(kind):
        return torch.zeros((1, 1, hub_width(kind)))
    # one word of padding, for a sequence of no steps is more than some operations can take
    return torch.zeros((1, 1, *tokeniser(kind)([""])[0].shape[2:]), dtype=torch.long)


class Texts(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Texts for a system whose `words` is `kind`; one without a word gives length 0, as a missing text does in training."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.encoder: nn.Module | None = None
        self.cut: Callable[[Sequence[str]], tuple[Tensor, Tensor]] | None = None
        if is_hub(kind):
            from clser.models.encoders.pretrained_text import open_text  # noqa: PLC0415 - loads transformers

            self.encoder = open_text(kind.removeprefix(HUB)).eval()
        else:
            self.cut = tokeniser(kind)
        # so that a device is known where there are no weights
        self.register_buffer("nothing_BLX", no_words(kind), persistent=False)

    def forward(self, texts: Sequence[str]) -> Sequences:
        """All texts in one call, on the device of this module."""
        there = [row for row, text in enumerate(texts) if words(text)]
        spoken = [texts[row] for row in there]
        if self.cut is not None:
            cut = self.cut(spoken) if spoken else None
            rows: list[Tensor | None] = [None] * len(texts)
            if cut is not None:
                for row, ids, many in zip(there, *cut, strict=True):
                    rows[row] = ids[: int(many)]
            x_BLX, length_B = pad_ids(rows, self.cut)
            return Sequences(x_BLX.to(self.nothing_BLX.device), length_B.to(self.nothing_BLX.device))
        return self._encoded(spoken, there, len(texts))

    def _encoded(self, spoken: Sequence[str], there: Sequence[int], rows: int) -> Sequences:
        """By the pretrained encoder, which is not asked about nothing."""
        assert self.encoder is not None
        device = self.nothing_BLX.device
        length_B = torch.zeros(rows, dtype=torch.long, device=device)
        if not spoken:
            return Sequences(self.nothing_BLX.expand(rows, -1, -1), length_B)
        with torch.autocast(device.type, enabled=False):  # its weights say how precise it is
            ids_BL, many_B = (part.to(device) for part in self.encoder.tokenise(spoken))
            said_BLX = self.encoder(ids_BL, many_B).x_BTD
        at_B = torch.tensor(list(there), device=device)
        x_BLX = said_BLX.new_zeros(rows, *said_BLX.shape[1:]).index_copy(0, at_B, said_BLX)
        return Sequences(x_BLX, length_B.index_copy(0, at_B, many_B))

    def shorten(self, dtype: torch.dtype) -> None:
        """A pretrained encoder's weights in half; what leaves it stays float32."""
        if self.encoder is not None:
            self.encoder.encoder.to(dtype)
