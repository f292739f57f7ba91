"""The resonance field of SERE (arXiv 2604.07417): which frames of two utterances swing together, and what follows from it.

Letters: N utterances s, S frames of each, M utterances t, T frames of each, D channels, K dynamic features, C classes.

An utterance is frames z_t beside a strength b_t of its dynamics in each frame; a system without dynamics gives zeros, and
the field is then the cosine alone. Everything here works on any system's frames, and no padding counts.

All pairs of N and M utterances have N M S T numbers: 700 x 600 clips of 64 frames are 1.7e9. They are made a part at a time,
at most `most` numbers, and only the mean of each pair's best is kept. What that costs is 2 N M S T D multiplications:
with D 256 some 25 s of one core for those clips, and a sixteenth of that if every fourth frame will do.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from clser.models.layers.averages import SMALLEST_DEVIATION
from clser.models.tensors import real

MOST = 1 << 20
"""Numbers of the field that are there at once: 4 MB, which a processor's cache still holds."""
APART = -1.0
"""The field where either side has no frames: the least that a cosine can be."""


class Voices(NamedTuple):
    """Utterances, padded."""

    z_NSD: Tensor
    b_NS: Tensor
    length_N: Tensor

    def of(self, which: Tensor) -> "Voices":
        """These utterances alone."""
        return Voices(self.z_NSD[which], self.b_NS[which], self.length_N[which])


def strengths(d_NSK: Tensor, alpha_K: Tensor) -> Tensor:
    """[N, S]: b_t = sum_k alpha_k |d_t^k| (eq. 3), alpha >= 0."""
    return (d_NSK.abs() * alpha_K).sum(2)  # eq. 3


def standard(b_NS: Tensor, length_N: Tensor) -> Tensor:
    """[N, S]: strengths as z-scores over all frames given, so that tau means the same everywhere. Zeros in padding."""
    there_NS = real(length_N, b_NS.shape[1])
    count = there_NS.sum().clamp_min(1)
    mean = b_NS.masked_fill(~there_NS, 0.0).sum() / count
    far_NS = (b_NS - mean).masked_fill(~there_NS, 0.0)
    return far_NS / (far_NS.square().sum() / count).sqrt().clamp_min(SMALLEST_DEVIATION)


def irf(s: Voices, t: Voices, tau: float = 1.0, *, most: int = MOST, half: bool | None = None) -> Tensor:
    """[N, M]: IRF(s, t), the mean over frames of s of the best that any frame of t gives (eq. 4 to 6).

    `most`: numbers of the field at once, under `no_grad`; with gradients all of them are kept. `half`: products in half
    precision; None: where there is a GPU.
    """
    (z_s, b_s, len_s), (z_t, b_t, len_t) = s, t
    (rows, steps, _), (others, beats, _) = z_s.shape, z_t.shape
    short = z_s.is_cuda if half is None else half
    unit_s, unit_t = (_unit(z, short) for z in (z_s, z_t))
    real_s, real_t = real(len_s, steps), real(len_t, beats)
    wide = max(1, min(others, most // max(1, steps * beats)))
    tall = max(1, min(rows, most // max(1, steps * beats * wide)))
    parts = []
    for n in range(0, rows, tall):
        line = []
        for m in range(0, others, wide):
            some, them = slice(n, n + tall), slice(m, m + wide)
            cosine = unit_s[some].flatten(0, 1) @ unit_t[them].flatten(0, 1).T
            field = _field(cosine.float(), b_s[some].flatten()[:, None], b_t[them].flatten()[None], tau)
            field = field.reshape(-1, steps, real_t[them].shape[0], beats)
            best_NSM = field.masked_fill(~real_t[them], APART).amax(3)  # R_{i,j*(i)}
            own_NS1 = real_s[some][..., None]
            line.append(best_NSM.masked_fill(~own_NS1, 0.0).sum(1) / own_NS1.sum(1).clamp_min(1))  # eq. 6
        parts.append(torch.cat(line, 1))
    found = torch.cat(parts) if parts else z_s.new_zeros(0, others)
    empty = (len_s == 0)[:, None] | (len_t == 0)[None]
    return found.masked_fill(empty, APART)


def resonance(s: Voices, t: Voices, tau: float = 1.0, straight: float = 0.0) -> tuple[Tensor, Tensor]:
    """r^s [N, D] and IRF [N] of each utterance with the one beside it, N pairs (eq. 4 to 6). Zeros where a side is empty.

    The choice of frames has no slope. `straight`: a temperature at which softly chosen frames lend theirs; 0: none is lent,
    and what strengthens a frame is not learnt.
    """
    cosine_NST = _unit(s.z_NSD) @ _unit(t.z_NSD).transpose(1, 2)
    field_NST = _field(cosine_NST, s.b_NS[:, :, None], t.b_NS[:, None], tau)
    real_N1T = real(t.length_N, t.b_NS.shape[1])[:, None]
    field_NST = field_NST.masked_fill(~real_N1T, APART)
    best_NS, at_NS = field_NST.max(2)  # j*(i) = argmax_j R_ij
    real_NS1 = real(s.length_N, s.b_NS.shape[1])[..., None]
    if straight > 0.0:
        soft_NST = (field_NST / straight).masked_fill(~real_N1T, torch.finfo(field_NST.dtype).min).softmax(2)
        hard_NST = functional.one_hot(at_NS, field_NST.shape[2]).to(soft_NST.dtype)
        z_NSD = (hard_NST + soft_NST - soft_NST.detach()) @ t.z_NSD
    else:
        z_NSD = t.z_NSD.gather(1, at_NS[..., None].expand(-1, -1, t.z_NSD.shape[2]))
    both_N1 = ((s.length_N > 0) & (t.length_N > 0))[:, None]
    count_N1 = s.length_N.clamp_min(1)[:, None]
    r_ND = (z_NSD * real_NS1).sum(1) / count_N1  # eq. 5
    irf_N1 = (best_NS[..., None] * real_NS1).sum(1) / count_N1  # eq. 6
    return torch.where(both_N1, r_ND, 0.0), torch.where(both_N1, irf_N1, APART)[:, 0]


def partners(s: Voices, t: Voices, tau: float = 1.0, *, most: int = MOST) -> tuple[Tensor, Tensor]:
    """a [N], the t that resonates most with each s, and how much [N]."""
    with torch.no_grad():
        best_N, a_N = irf(s, t, tau, most=most).max(1)
    return a_N, best_N


def prototypes(
    e_ND: Tensor, class_N: Tensor, e_MD: Tensor, partner_M: Tensor, *, classes: int, share: float = 0.5
) -> Tensor:
    """P_c [C, D] (eq. 7): the mean of labelled utterances e_ND and of unlabelled ones e_MD, each drawn by `share` towards
    its labelled partner, whose class it is taken for. A class that nobody has is zeros."""
    theirs_MD = (1.0 - share) * e_MD + share * e_ND[partner_M]
    class_X = torch.cat((class_N, class_N[partner_M]))
    member_CX = functional.one_hot(class_X, classes).T.to(e_ND.dtype)
    sums_CD = member_CX @ torch.cat((e_ND, theirs_MD))
    return sums_CD / member_CX.sum(1, keepdim=True).clamp_min(1.0)  # eq. 7


def pulled(r_MD: Tensor, prototype_CD: Tensor, class_M: Tensor, squared: bool = False) -> Tensor:
    """L_GPR (eq. 8): -log softmax_c(-||r_j - P_c||)[c_j], the mean over j; 0 of nobody."""
    if not len(r_MD):
        return r_MD.sum()
    far_MCD = r_MD[:, None] - prototype_CD
    square_MC = far_MCD.square().sum(2)
    # the root's slope at nothing is infinite
    far_MC = square_MC if squared else (square_MC + torch.finfo(square_MC.dtype).eps).sqrt()
    return functional.cross_entropy(-far_MC, class_M)  # eq. 8


def aligned(r_MD: Tensor, reference_MD: Tensor) -> Tensor:
    """L_DIR (eq. 9): 1 - cos(r_u, r_ref), the mean over u; 0 of nobody."""
    if not len(r_MD):
        return r_MD.sum()
    return (1.0 - functional.cosine_similarity(r_MD, reference_MD, dim=1)).mean()  # eq. 9


def _unit(z_NSD: Tensor, short: bool = False) -> Tensor:
    unit_NSD = functional.normalize(z_NSD.float(), dim=-1)
    return unit_NSD.half() if short else unit_NSD


def _field(cosine: Tensor, b_s: Tensor, b_t: Tensor, tau: float) -> Tensor:
    """R_ij = cos(z_i, z_j) exp(-|b_i - b_j| / tau) (eq. 4)."""
    return cosine * torch.exp((b_s - b_t).abs() * (-1.0 / tau))  # eq. 4
