"""Attention without hidden state: over another sequence, over the layers of an encoder, and to one vector per row.

Letters: B rows, T steps that ask, S steps that are asked, D channels, H attention heads, E channels of a head, K layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clser.models.tensors import Sequences, real

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class Attention(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Scaled dot products with several heads (Vaswani et al. 2017, eq. 1 and section 3.2.2), by plain products: exports.

    A step that may look at nothing gets the mean of all values: finite, and for the caller to throw away.
    """

    def __init__(self, width: int, heads: int, drop: float = 0.0, memory_width: int | None = None) -> None:
        super().__init__()
        assert width % heads == 0, f"{width} channels cannot be shared by {heads} heads"
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_width or width, width)
        self.value = nn.Linear(memory_width or width, width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(drop)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, allowed_BTS: Tensor) -> Tensor:
        """[B, T, D]. `allowed_BTS` (booleans, T may be 1) says which steps may be looked at."""
        return self.read(x_BTD, self.key(memory_BSD), self.value(memory_BSD), allowed_BTS)

    def read(self, x_BTD: Tensor, key_BSD: Tensor, value_BSD: Tensor, allowed_BTS: Tensor) -> Tensor:
        """The same from keys and values made earlier."""
        query_BHTE, key_BHSE, value_BHSE = (
            self._split(x) for x in (self.query(x_BTD) * self.scale, key_BSD, value_BSD)
        )
        score_BHTS = query_BHTE @ key_BHSE.transpose(2, 3)
        score_BHTS = score_BHTS.masked_fill(~allowed_BTS[:, None], torch.finfo(score_BHTS.dtype).min)
        mixed_BHTE = self.drop(score_BHTS.softmax(-1)) @ value_BHSE
        return self.out(mixed_BHTE.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        rows, steps, width = x_BTD.shape
        return x_BTD.reshape(rows, steps, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Two linear layers with an activation between (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, width: int, hidden: int, activation: str = "gelu", drop: float = 0.0) -> None:
        super().__init__()
        self.grow, self.shrink = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation, self.drop = ACTIVATIONS[activation](), nn.Dropout(drop)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D], without the residual."""
        return self.shrink(self.drop(self.activation(self.grow(x_BTD))))


class CrossAttention(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """One sequence asks, another is asked: attention and a feed-forward part, each with its residual and norm.

    A row whose `memory` has no step comes back as it went in, for nothing was heard. Padding comes back as zeros.
    The norms stand after the residual, as in Vaswani et al. 2017, or with `norm="pre"` before each part.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, drop: float = 0.1, norm: str = "post", activation: str = "gelu",
        memory_width: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        assert norm in ("pre", "post")
        self.pre, self.width = norm == "pre", width
        self.attention = Attention(width, heads, drop, memory_width)
        self.feed_forward = FeedForward(width, hidden, activation, drop)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)

    def forward(self, queries: Sequences, memory: Sequences) -> Sequences:
        """As long as `queries`."""
        x_BTD, length_B = queries
        allowed_B1S = real(memory.length_B, memory.x_BTD.shape[1])[:, None]
        if self.pre:
            y_BTD = x_BTD + self.drop(self.attention(self.attention_norm(x_BTD), memory.x_BTD, allowed_B1S))
            y_BTD = y_BTD + self.drop(self.feed_forward(self.feed_norm(y_BTD)))
        else:
            y_BTD = self.attention_norm(x_BTD + self.drop(self.attention(x_BTD, memory.x_BTD, allowed_B1S)))
            y_BTD = self.feed_norm(y_BTD + self.drop(self.feed_forward(y_BTD)))
        heard_BTD = torch.where((memory.length_B > 0)[:, None, None], y_BTD, x_BTD)
        return Sequences(heard_BTD.masked_fill(~real(length_B, x_BTD.shape[1])[..., None], 0.0), length_B)


class LayerMix(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A learnt weighted mean of K layers' outputs, the same weights for every step (Peters et al. 2018, eq. 1, gamma = 1).

    Begins as the plain mean.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.score_K = nn.Parameter(torch.zeros(layers))

    def weights(self) -> Tensor:
        """[K], adding up to one."""
        return self.score_K.softmax(0)

    def forward(self, layers: Sequence[Tensor] | Tensor) -> Tensor:
        """K tensors of one shape -> one of that shape."""
        return mixed(layers, self.weights())


def mixed(layers: Sequence[Tensor] | Tensor, weight_K: Tensor) -> Tensor:
    """The sum of each layer times its weight, without a copy of all of them."""
    assert len(layers) == len(weight_K), f"{len(layers)} layers for {len(weight_K)} weights"
    sum_ = weight_K[0] * layers[0]
    for k in range(1, len(layers)):
        sum_ = sum_ + weight_K[k] * layers[k]
    return sum_


class AdditiveAttention(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A row's steps to one vector: score v . tanh(W x + U q + b), softmax over the real steps, weighted mean.

    Bahdanau et al. 2015, section 3.1 and A.1.2; without a `query_width` there is no U q. A row without a step gives zeros.
    """

    def __init__(self, width: int, hidden: int, query_width: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.key, self.score = nn.Linear(width, hidden), nn.Linear(hidden, 1, bias=False)
        self.query = nn.Linear(query_width, hidden, bias=False) if query_width else None

    def weights(self, x_BTD: Tensor, length_B: Tensor, query_BD: Tensor | None = None) -> Tensor:
        """[B, T], adding up to one over the real steps and zero elsewhere."""
        hidden_BTD = self.key(x_BTD)
        if self.query is not None:
            assert query_BD is not None
            hidden_BTD = hidden_BTD + self.query(query_BD)[:, None]
        score_BT = self.score(torch.tanh(hidden_BTD)).squeeze(2)
        real_BT = real(length_B, x_BTD.shape[1])
        score_BT = score_BT.masked_fill(~real_BT, torch.finfo(score_BT.dtype).min)
        return score_BT.softmax(1).masked_fill(~real_BT, 0.0)

    def forward(self, x_BTD: Tensor, length_B: Tensor, query_BD: Tensor | None = None) -> Tensor:
        """[B, D]."""
        return (self.weights(x_BTD, length_B, query_BD)[:, None] @ x_BTD)[:, 0]
