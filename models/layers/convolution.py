"""The short causal convolution that recurrent layers hear through, its past in the open.

Letters: B rows, T steps, D channels, K steps of the past.
"""

import torch
from torch import Tensor, nn

from clser.models.tensors import after

KERNEL = 4
"""Steps that it hears: this one and three before."""


class CausalConv(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Each channel's weighted sum of its last `KERNEL` steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight_KD = nn.Parameter(torch.empty(KERNEL, channels).uniform_(-(KERNEL**-0.5), KERNEL**-0.5))
        self.bias_D = nn.Parameter(torch.zeros(channels))

    def start(self, rows: int) -> Tensor:
        """[B, K, D]: the steps before the first one."""
        return self.bias_D.new_zeros(rows, KERNEL - 1, self.bias_D.shape[0])

    def forward(self, x_BTD: Tensor, length_B: Tensor, past_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D], and each row's own last steps."""
        both_BTD = torch.cat((past_BKD, x_BTD), 1)
        # ends are counted from the back: an exported graph takes any number of steps
        shifted = [both_BTD[:, k : k + 1 - KERNEL or None] for k in range(KERNEL)]
        summed_BTD = self.bias_D + sum(weight_D * part for weight_D, part in zip(self.weight_KD, shifted, strict=True))
        return summed_BTD, after(past_BKD, x_BTD, length_B)
