"""A linear layer over hashed grams, small enough to ship: buckets that one gram each owns, and a byte a weight.

Letters: B texts, N grams of a text, K buckets, C outputs.

A gram may lie in either of two buckets; the most telling grams found a place and the others count as unknown, for sharing
a bucket would add their noise to it. A weight w is kept as a byte q with w = s q|q|: most are small and a few are large.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TAGS = 2**15
TAGGED = 2**16
"""A gram's tag is what is left of its number when divided by this."""
STIR = 2_654_435_761
"""Times a number below 2**31 it stays below 2**63; the digits in the middle are stirred well."""
NOBODY = -1
MOST = 127


class Found(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """ids_BN (0: padding) -> [B, C], the sum of the known grams' weights over the root of their number, plus a bias; and
    [B], how many are known.
    """

    def __init__(self, buckets: int, outputs: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.register_buffer("tag_K", torch.full((buckets,), NOBODY, dtype=torch.int16))
        self.register_buffer("weight_KC", torch.zeros(buckets, outputs, dtype=torch.int8))
        self.register_buffer("scale_C", torch.ones(outputs))
        self.register_buffer("bias_C", torch.zeros(outputs))

    def forward(self, ids_BN: Tensor) -> tuple[Tensor, Tensor]:
        tag_BN = (ids_BN // TAGGED) % TAGS
        first_BN, second_BN = ids_BN % self.buckets, (ids_BN * STIR // TAGGED) % self.buckets
        in_first_BN = self.tag_K[first_BN].long() == tag_BN
        known_BN = (in_first_BN | (self.tag_K[second_BN].long() == tag_BN)) & (ids_BN > 0)
        kept_BNC = self.weight_KC[torch.where(in_first_BN, first_BN, second_BN)].float() * known_BN[..., None]
        sum_BC = (kept_BNC * kept_BNC.abs()).sum(1) * self.scale_C
        known_B = known_BN.sum(1).float()
        return sum_BC * torch.rsqrt(known_B.clamp_min(1.0))[:, None] + self.bias_C, known_B

    def keep(self, tag_K: NDArray[np.int16], weight_KC: NDArray[np.float32], bias_C: NDArray[np.float32]) -> None:
        """Takes these owners and weights, rounded to bytes."""
        scale_C = np.maximum(np.abs(weight_KC).max(0), 1e-9) / MOST**2
        byte_KC = np.rint(np.sign(weight_KC) * np.sqrt(np.abs(weight_KC) / scale_C)).astype(np.int8)
        self.tag_K.copy_(torch.from_numpy(tag_K))
        self.weight_KC.copy_(torch.from_numpy(byte_KC))
        self.scale_C.copy_(torch.from_numpy(scale_C))
        self.bias_C.copy_(torch.from_numpy(bias_C))

    def weights(self) -> Tensor:
        """[K, C] as they count."""
        q_KC = self.weight_KC.float()
        return q_KC * q_KC.abs() * self.scale_C
