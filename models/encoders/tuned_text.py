"""A pretrained text encoder within a system, whose last layers learn along with it.

Letters: B rows, L tokens, D width.

Only what learns is written with the system's weights; the rest comes from the checkpoint, which must be on the machine.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clser.models.encoders.found import checkpoint
from clser.models.encoders.pretrained_text import open_text, open_tokenizer, tokenise
from clser.models.encoders.text import TUNED
from clser.models.errors import GivenError
from clser.models.tensors import Sequences

MOST_TOKENS = 128
"""As MPAF-Net reads of an utterance, its two marks included."""


class TunedText(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """ids_BL and length_B -> `Sequences`: one vector for each token, the first one of all of them."""

    def __init__(self, name: str, layers: int) -> None:
        super().__init__()
        self.name = name
        self.reader = open_text(name, trainable_layers=layers, most_tokens=MOST_TOKENS)
        self.width = int(self.reader.width)
        self.register_state_dict_post_hook(_only_learnt)
        self.register_load_state_dict_pre_hook(_with_frozen)

    def forward(self, ids_BL: Tensor, length_B: Tensor) -> Sequences:
        if torch.jit.is_tracing():
            raise GivenError(
                f"this system trained {self.name} along, which is not exported with it; run the trained folder with "
                "model.backend=torch"
            )
        told: Sequences = self.reader(ids_BL, length_B)
        return told


def token_ids(name: str) -> Callable[[Sequence[str]], Sequences]:
    """What cuts texts up for a system whose `words` is `tuned:NAME`."""
    tokenizer = open_tokenizer(checkpoint(name.removeprefix(TUNED)))

    def cut(texts: Sequence[str]) -> Sequences:
        return Sequences(*tokenise(tokenizer, texts, MOST_TOKENS, int(tokenizer.pad_token_id or 0)))

    return cut


def _frozen(module: Any) -> dict[str, Tensor]:
    learnt = module.reader.learnt()
    return {f"reader.{name}": part for name, part in module.reader.state_dict().items() if name not in learnt}


def _only_learnt(module: nn.Module, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in _frozen(module):
        weights.pop(prefix + name)


def _with_frozen(module: nn.Module, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, part in _frozen(module).items():
        weights.setdefault(prefix + name, part)
