"""Sound cut into windows that overlap, call after call.

Letters: B rows, S samples, T windows, K hops kept from before, H samples of a hop, W samples of a window.

A window ends where its hop ends, so none reaches into the future; before the first sample there are zeros. The hops that
the next windows still reach back to are the state. The same cut serves a track of frames: there a "sample" is one number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clser.models.tensors import after


@dataclass(frozen=True, slots=True)
class Framing:
    """Windows of `window` samples, one every `hop`; the window need not be a multiple of the hop."""

    window: int
    hop: int

    def __post_init__(self) -> None:
        assert 0 < self.hop < self.window, "windows that do not overlap keep nothing: reshape is enough"

    @property
    def kept(self) -> int:
        """K: how many whole hops a window reaches back beyond its own."""
        return -(-self.window // self.hop) - 1

    def cut(self, past_BKH: Tensor, sound_BS: Tensor) -> Tensor:
        """[B, T, W]: the window that ends with each of the T hops of sound."""
        hops_BTH = self.join(past_BKH, sound_BS)
        count = self.kept + 1
        last = hops_BTH.shape[1] - self.kept
        # Of the oldest hop a window may need only the end.
        first_BTH = hops_BTH[:, :last, self.hop * count - self.window :]
        others = [hops_BTH[:, k : last + k] for k in range(1, count)]
        return torch.cat((first_BTH, *others), 2)

    def join(self, past_BKH: Tensor, sound_BS: Tensor) -> Tensor:
        """[B, K + T, H]: the hops kept and those of this call."""
        return torch.cat((past_BKH, sound_BS.reshape(past_BKH.shape[0], -1, self.hop)), 1)

    def keep(self, past_BKH: Tensor, sound_BS: Tensor, hops_B: Tensor) -> Tensor:
        """[B, K, H]: the state after each row's own hops."""
        return after(past_BKH, sound_BS.reshape(past_BKH.shape[0], -1, self.hop), hops_B)
