"""Ways to make one vector, or one answer, of several sources, some of which may be missing.

Letters: B rows, K sources, D channels, C classes. `present_BK` (booleans) says which sources a row has; none given: all.
"""

import torch
from torch import Tensor, nn


class SigmoidGates(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A gate for each source, seen from all of them: g_k = sigmoid(MLP_k([f_1; ..; f_K])), f = sum of g_k f_k.

    As in ACMF-Net (Cen and Gai 2025): the gates are scalars and independent, so they need not add up to one.
    A missing source counts as zeros for the others' gates, and its own gate is zero.
    """

    def __init__(self, width: int, sources: int, hidden: int = 128) -> None:
        super().__init__()
        self.width = width
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(sources * width, hidden), nn.ReLU(), nn.Linear(hidden, 1)) for _ in range(sources)
        )

    def forward(self, x_BKD: Tensor, present_BK: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The fused [B, D], and the gates [B, K]."""
        if present_BK is not None:
            x_BKD = x_BKD.masked_fill(~present_BK[..., None], 0.0)
        all_BD = x_BKD.flatten(1)
        gate_BK = torch.sigmoid(torch.cat([gate(all_BD) for gate in self.gates], 1))
        if present_BK is not None:
            gate_BK = gate_BK.masked_fill(~present_BK, 0.0)
        return (gate_BK[..., None] * x_BKD).sum(1), gate_BK


class PairGate(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Two sources, one balance between them, as in MPAF-Net (Li et al.).

    p = Dropout(ReLU(W f)) of each; s = MLP([f1, f2, p1, p2]); a = sigmoid(s), a scalar; f = a p1 + (1 - a) p2.
    Where only one source is present it is taken whole; where none is, zeros.
    """

    def __init__(self, first: int, second: int, width: int, hidden: int, drop: float = 0.2) -> None:
        super().__init__()
        self.width = width
        self.first, self.second = nn.Linear(first, width), nn.Linear(second, width)
        self.balance = nn.Sequential(
            nn.Linear(first + second + 2 * width, hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(hidden, 1)
        )
        self.drop = nn.Dropout(drop)

    def forward(self, one_BD: Tensor, two_BD: Tensor, present_B2: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The fused [B, D], and the balance [B, 1]: the first source's share."""
        if present_B2 is not None:
            one_BD = one_BD.masked_fill(~present_B2[:, :1], 0.0)
            two_BD = two_BD.masked_fill(~present_B2[:, 1:], 0.0)
        p1_BD = self.drop(torch.relu(self.first(one_BD)))
        p2_BD = self.drop(torch.relu(self.second(two_BD)))
        share_B1 = torch.sigmoid(self.balance(torch.cat((one_BD, two_BD, p1_BD, p2_BD), 1)))
        if present_B2 is None:
            return share_B1 * p1_BD + (1.0 - share_B1) * p2_BD, share_B1
        has_one_B1, has_two_B1 = present_B2[:, :1], present_B2[:, 1:]
        share_B1 = share_B1.masked_fill(~has_two_B1, 1.0).masked_fill(~has_one_B1, 0.0)
        fused_BD = share_B1 * p1_BD + (1.0 - share_B1) * p2_BD
        return fused_BD.masked_fill(~(has_one_B1 | has_two_B1), 0.0), share_B1


class FeatureGate(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Two sources and a balance for each feature; the balances of a row add up to one over its features.

    The gated attention of BiGatedGraphFormer (code: GAL): h = tanh(W f) of each, z = softmax over features of W [f1; f2],
    f = z h1 + (1 - z) h2. No biases. With D features z is about 1/D: the second source weighs most, as it was published.
    """

    def __init__(self, first: int, second: int, width: int, drop: float = 0.0) -> None:
        super().__init__()
        self.width = width
        self.first, self.second = nn.Linear(first, width, bias=False), nn.Linear(second, width, bias=False)
        self.balance = nn.Linear(first + second, width, bias=False)
        self.drop = nn.Dropout(drop)
        for linear in (self.first, self.second, self.balance):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, one_BD: Tensor, two_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The fused [B, D], and the first source's share of each feature [B, D]."""
        h1_BD = self.drop(torch.tanh(self.first(one_BD)))
        h2_BD = self.drop(torch.tanh(self.second(two_BD)))
        share_BD = self.drop(self.balance(torch.cat((one_BD, two_BD), 1))).softmax(1)
        return share_BD * h1_BD + (1.0 - share_BD) * h2_BD, share_BD


class WeightedFusion(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Several models' answers to one: a weight for each model and class, softmax over models, a weighted sum of logits.

    The weighted probability fusion (WPF) of BiBiER. A missing model's weight goes to the others in proportion. Begins as
    the plain mean; a row without any model gives zeros.
    """

    def __init__(self, models: int, classes: int) -> None:
        super().__init__()
        self.score_KC = nn.Parameter(torch.zeros(models, classes))

    def forward(self, logits_BKC: Tensor, present_BK: Tensor | None = None) -> Tensor:
        """[B, C]."""
        if present_BK is None:
            return (self.score_KC.softmax(0) * logits_BKC).sum(1)
        missing_BK1 = ~present_BK[..., None]
        lowest = torch.finfo(self.score_KC.dtype).min
        weight_BKC = self.score_KC.expand_as(logits_BKC).masked_fill(missing_BK1, lowest).softmax(1)
        return (weight_BKC.masked_fill(missing_BK1, 0.0) * logits_BKC.masked_fill(missing_BK1, 0.0)).sum(1)
