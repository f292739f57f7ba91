"""What SERE makes small where few clips of one language have labels and those of another have none.

The chain of three: each unlabelled clip of the source takes after the labelled one that resonates most with it, and each
of the target after such an unlabelled one.

Letters: L labelled clips, N unlabelled clips of the source in a step, M of the target, D channels, C classes, X any of them.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from msgspec import Meta, Struct
from torch import Tensor
from torch.nn import functional

from clser.models.layers.averages import mean
from clser.models.layers.resonance import Voices, aligned, partners, prototypes, pulled, resonance, standard
from clser.models.tensors import Sequences

Coarse = Mapping[str, Sequences]
"""All clips of a side, as `Sere.coarse` leaves them."""
BALANCING = 50
"""Steps towards it; half of the way each."""
Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Transfer(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice of it."""

    steps: Count = 60
    batch: Count = 48
    """Unlabelled clips of each side in a step; the labelled ones are all in every step."""
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    warm: Share = 0.25
    """Share of the steps that are taken with labels alone: what resonates in a random projection tells nothing."""
    gpr: NotNegative = 1.0
    """How much L_GPR counts (lambda 1 of eq. 10)."""
    dir: NotNegative = 1.0
    """How much L_DIR counts (lambda 2)."""
    tau: Positive = 1.0
    """Of the strengths, which are z-scores (eq. 4)."""
    share: Share = 0.5
    """How far a prototype's unlabelled clip is drawn towards its labelled partner (eq. 7)."""
    squared: bool = False
    """Squared distances in eq. 8."""
    straight: NotNegative = 0.1
    """At which temperature softly chosen frames lend their slope to the chosen ones; 0: none, and alpha is not learnt."""
    resonant: Literal["own", "theirs"] = "own"
    """What r_j of eq. 8 is made of: the frames of j that its partner resonates with, or the partner's."""
    pull: Literal["source", "both"] = "both"
    """Whose unlabelled clips L_GPR pulls to the prototypes."""
    follow: Literal["nearest", "chain", "direct"] = "nearest"
    """Where a target clip's class comes from in eq. 8: the nearest prototype, its partner's (the chain), or the labelled
    clip's that it resonates with most."""
    balanced: bool = False
    """Ours: all classes are taken to be equally frequent in the target, in eq. 8 and in the answers."""
    normal: Literal["domain", "source"] = "domain"
    """Whether frames are z-scored by what is usual in their own domain, or all by the source's."""
    mmd: NotNegative = 0.0
    """How much the distance between the domains' embeddings counts (DAN, Long et al. 2015): a rival's loss."""


class Shots(NamedTuple):
    """Labelled clips."""

    coarse: Coarse
    class_L: Tensor


def loss_of(system: Any, shots: Shots, drawn: Sequence[Coarse] | None, asked: Transfer) -> Tensor:
    """L = L_CE + lambda_1 L_GPR + lambda_2 L_DIR (eq. 10); without unlabelled clips L_CE alone.

    Where there are two encoders, the labelled clips pass both.
    """
    labelled = [system.heard(shots.coarse, through, "source") for through in system.paths]
    each = [functional.cross_entropy(system.answer(system.drop(_pooled(one))), shots.class_L) for one in labelled]
    loss = torch.stack(each).mean()
    if drawn is None:
        return loss
    first, second = drawn
    u, v = system.heard(first, "unlabelled", "source"), system.heard(second, "unlabelled", "target")
    if asked.mmd:
        loss = loss + asked.mmd * mmd(torch.cat((_pooled(labelled[0]), _pooled(u))), _pooled(v))
    if asked.gpr or asked.dir:
        l_u_v = [_standard(one) for one in (labelled[0], u, v)]
        gpr, dir_ = resonances(l_u_v, shots.class_L, len(system.heads), asked)
        loss = loss + asked.gpr * gpr + asked.dir * dir_  # eq. 10
    return loss


def resonances(l_u_v: Sequence[Voices], class_L: Tensor, classes: int, asked: Transfer) -> tuple[Tensor, Tensor]:
    """L_GPR and L_DIR of labelled clips, unlabelled ones of the source, and of the target."""
    labelled, u, v = l_u_v
    a_N, _ = partners(u, labelled, asked.tau)
    a_M, _ = partners(v, u, asked.tau)
    class_N = class_L[a_N]
    pairs = _mutual(u, labelled.of(a_N), asked), _mutual(v, u.of(a_M), asked)
    p_CD = prototypes(_pooled(labelled), class_L, _pooled(u), a_N, classes=classes, share=asked.share)  # eq. 7
    r_XD = [own if asked.resonant == "own" else theirs for own, theirs in pairs]
    class_X = class_N
    if asked.pull == "source":
        r_XD = r_XD[:1]
    elif asked.follow == "chain":
        class_X = torch.cat((class_N, class_N[a_M]))
    elif asked.follow == "direct":
        class_X = torch.cat((class_N, class_L[partners(v, labelled, asked.tau)[0]]))
    else:
        near_MC = -torch.cdist(_pooled(v), p_CD).detach()
        class_M = (near_MC + (offsets(near_MC) if asked.balanced else 0.0)).argmax(1)
        class_X = torch.cat((class_N, class_M))
    gpr = pulled(torch.cat(r_XD), p_CD, class_X, asked.squared)  # eq. 8
    return gpr, torch.stack([aligned(own, theirs) for own, theirs in pairs]).mean()  # eq. 9


def offsets(logits_MC: Tensor) -> Tensor:
    """[C]: what is to be added to logits for every class to be as likely as any other, the mean over rows."""
    offset_C = torch.zeros_like(logits_MC[0])
    for _ in range(BALANCING):
        likely_C = (logits_MC + offset_C).softmax(1).mean(0)
        offset_C = offset_C - 0.5 * torch.log(likely_C * len(likely_C))
    return offset_C


def _mutual(one: Voices, other: Voices, asked: Transfer) -> tuple[Tensor, Tensor]:
    """What of `one` its partner resonates with, and what of the partner it resonates with itself (eq. 5)."""
    own, _ = resonance(other, one, asked.tau, asked.straight)
    theirs, _ = resonance(one, other, asked.tau, asked.straight)
    return own, theirs


def mmd(one_ND: Tensor, other_MD: Tensor) -> Tensor:
    """The squared maximum mean discrepancy by Gaussians of several widths about the usual distance (Long et al. 2015)."""
    both_XD = torch.cat((one_ND, other_MD))
    far_XX = torch.cdist(both_XD, both_XD).square()
    usual = far_XX.detach().mean().clamp_min(torch.finfo(far_XX.dtype).eps)
    near_XX = torch.stack([torch.exp(-far_XX / (usual * width)) for width in (0.25, 0.5, 1.0, 2.0, 4.0)]).mean(0)
    n = len(one_ND)
    return near_XX[:n, :n].mean() + near_XX[n:, n:].mean() - 2.0 * near_XX[:n, n:].mean()


def _pooled(voices: Voices) -> Tensor:
    return mean(voices.z_NSD, voices.length_N)


def _standard(voices: Voices) -> Voices:
    return voices._replace(b_NS=standard(voices.b_NS, voices.length_N))
