"""The manner (`clser.models.features.manner`) of whole utterances, for systems that answer once.

Letters: B rows, T frames of 40 ms, S hops, M mel bands, F numbers that come out.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from clser.models.features.constants import HOPS
from clser.models.features.logmel import BANDS
from clser.models.features.manner import Manner
from clser.models.layers.colour import SPEECH_LEVEL
from clser.models.tensors import Sequences, real


class WholeManner(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Frames of `logmel` and `prosody` -> [B, F]."""

    def __init__(self) -> None:
        super().__init__()
        self.manner = Manner(HOPS)

    def fit(self, given: Mapping[str, Sequences]) -> None:
        """Takes what is usual, of hops of speech, from a large batch."""
        bands_BSM, prosody_BSP, real_BS = _hops(given)
        columns_BSC = self.manner.columns(bands_BSM, prosody_BSP)
        self.manner.fit(columns_BSC[real_BS & (bands_BSM.mean(2) > SPEECH_LEVEL)])

    def forward(self, given: Mapping[str, Sequences]) -> Tensor:
        length_B = given["logmel"].length_B
        hops, state = _hops(given), self.manner.start(length_B.shape[0])
        f_B1F, _ = self.manner(*hops, state, (length_B - 1).clamp_min(0)[:, None])
        told_BF: Tensor = f_B1F[:, 0]
        return told_BF


def _hops(given: Mapping[str, Sequences]) -> tuple[Tensor, Tensor, Tensor]:
    """Bands, prosody, and which hops are real."""
    logmel_BTX, length_B = given["logmel"]
    bands_BSM = logmel_BTX[..., : HOPS * BANDS].reshape(logmel_BTX.shape[0], -1, BANDS)
    return bands_BSM, given["prosody"].x_BTD, real(length_B * HOPS, bands_BSM.shape[1])
