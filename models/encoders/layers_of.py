"""Which hidden layers of a pretrained encoder are read, how they become one, and which of its parts learn.

Letters: B rows, T steps, D channels of a layer, K layers read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clser.models.errors import GivenError
from clser.models.layers.attention import mixed
from clser.models.tensors import Sequences, real

FUSIONS = ("mean", "concat", "weights")
Layers = str | int | Sequence[int]


class Choice(NamedTuple):
    """What a user may wish of any pretrained encoder."""

    layers: Layers = "last"
    """"last", "all", a number or several: see `chosen`."""
    fusion: str = "mean"
    """How several become one: "mean", "concat", or "weights", which are learnt."""
    trainable_layers: int = 0
    """How many of the layers in use, counted from the top, learn with whatever stands on the encoder."""


def chosen(layers: Layers, depth: int) -> tuple[int, ...] | None:
    """The hidden states to read, 0 (what goes into the first layer) to `depth`; None: the encoder's own answer.

    The two differ at the top where a last norm follows the last layer (large wav2vec2, Whisper): "last" has it.
    """
    if layers == "last":
        return None
    if layers == "all":
        return tuple(range(depth + 1))
    numbers = (layers,) if isinstance(layers, int) else layers
    if isinstance(numbers, str) or not numbers or not all(isinstance(k, int) and 0 <= k <= depth for k in numbers):
        raise GivenError(f"layers must be 'last', 'all', or numbers from 0 to {depth} for this encoder, not {layers!r}")
    return tuple(numbers)


class Fusion(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """K layers [B, T, D] each -> [B, T, D], or [B, T, K*D] for "concat". Only "weights" has anything to learn."""

    def __init__(self, count: int, how: str = "mean") -> None:
        super().__init__()
        if how not in FUSIONS:
            raise GivenError(f"fusion must be one of {', '.join(FUSIONS)}, not {how!r}")
        self.how = how
        self.times = count if how == "concat" else 1
        # Zeros: all layers count the same until training tells them apart.
        self.weight_K = nn.Parameter(torch.zeros(count)) if how == "weights" else None

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        if self.how == "concat":
            return torch.cat(tuple(layers), -1)
        if self.weight_K is None:
            return torch.stack(tuple(layers)).mean(0)
        return mixed(layers, torch.softmax(self.weight_K, 0))


class Reader(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """What all adapters share: the pretrained part stays frozen and in evaluation mode, save its last few layers."""

    def __init__(self, encoder: nn.Module, stack: nn.ModuleList, width: int, choice: Choice) -> None:
        super().__init__()
        self.encoder = encoder
        self.numbers = chosen(choice.layers, len(stack))
        self.fusion = Fusion(1 if self.numbers is None else len(self.numbers), choice.fusion)
        self.width = width * self.fusion.times
        used = len(stack) if self.numbers is None else max(self.numbers)
        # What lies above the highest layer read is not run. One is left: where a last norm is laid over the topmost
        # hidden state, it must not fall on a layer that is read from the middle.
        del stack[used + 1 :]
        learning = choice.trainable_layers
        if not 0 <= learning <= used:
            raise GivenError(f"trainable_layers must be 0 to {used}, the layers in use here, not {learning}")
        encoder.requires_grad_(False)
        self.learning = list(stack)[used - learning : used]  # a list: the encoder owns them already
        for layer in self.learning:
            layer.requires_grad_(True)
        self.train(False)

    def train(self, mode: bool = True) -> "Reader":
        """Dropout wakes up in the layers that learn; layer drop and masking of the input never do."""
        super().train(mode)
        self.encoder.eval()
        for layer in self.learning:
            layer.train(mode)
        return self

    def fused(self, last_BTD: Tensor, hidden: Sequence[Tensor], length_B: Tensor) -> Sequences:
        """The chosen layers as one, in float32, zeros in the padding."""
        read = (last_BTD,) if self.numbers is None else tuple(hidden[k] for k in self.numbers)
        x_BTD = self.fusion(read).float()
        return Sequences(x_BTD * real(length_B, x_BTD.shape[1])[..., None], length_B)

    def shorten(self, dtype: torch.dtype) -> None:
        """Its weights in half; what leaves it stays float32."""
        self.encoder.to(dtype)

    def learnt(self) -> dict[str, Tensor]:
        """The tensors that training may have changed: all that needs to be saved beside the checkpoint's name."""
        return {name: tensor.detach() for name, tensor in self.named_parameters() if tensor.requires_grad}

    def relearn(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what `learnt` gave. The reader must have been opened with the same choices."""
        mine = dict(self.named_parameters())
        wanted = {name for name, tensor in mine.items() if tensor.requires_grad}
        wrong = sorted(wanted ^ tensors.keys()) or sorted(n for n in wanted if tensors[n].shape != mine[n].shape)
        if wrong:
            raise GivenError(
                f"these learnt tensors do not fit this encoder ({wrong[0]} is the first that differs): "
                "open it with the layers, fusion and trainable_layers it was trained with"
            )
        with torch.no_grad():
            for name in wanted:
                mine[name].copy_(tensors[name])
