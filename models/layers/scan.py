"""Selective scans: the recurrences at the heart of Mamba, computed in pieces, or step by step as a reference.

Letters: B rows, T steps, D channels, N numbers of state a channel, H heads, P channels a head, C chunks, L steps of a chunk.

Two kinds. `scan` (Gu and Dao 2023, eq. 2 with Alg. 2): each channel has N decays of its own. `dual` (Dao and Gu 2024,
sec. 5): one decay a head, so that a chunk becomes products of matrices, which processors are good at; our own encoders
use it. In both a step whose delta is 0 leaves the state alone, which is how padding passes.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from clser.models.layers.scripting import scripted

SMALL = 2**11
"""Numbers of state up to which calling an operation costs more than computing it: there, chunks are worth their corrections."""
DUAL_CHUNK = 64
"""Within a chunk the work grows with the square, between chunks it does not; sums of logarithms stay short."""


class Steps(NamedTuple):
    """What a scan is given of each step. In the dual, x and delta have a head's axis: [B, T, H, P] and [B, T, H]."""

    x_BTD: Tensor
    delta_BTD: Tensor
    in_BTN: Tensor
    out_BTN: Tensor


def sequential(steps: Steps, decay_DN: Tensor, state_BDN: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t (eq. 2a);  y_t = C_t h_t (eq. 2b).  A < 0."""
    answers = []
    # taken apart at once: the gradient of a step cut out alone is as long as all steps
    for x_BD, delta_BD, in_BN, out_BN in zip(*(part.unbind(1) for part in steps), strict=True):
        kept_BDN = torch.exp(delta_BD[..., None] * decay_DN) * state_BDN
        state_BDN = kept_BDN + (delta_BD * x_BD)[..., None] * in_BN[:, None]
        answers.append((state_BDN @ out_BN[..., None])[..., 0])
    return (torch.stack(answers, 1) if answers else steps.x_BTD), state_BDN


def scan(steps: Steps, decay_DN: Tensor, state_BDN: Tensor) -> tuple[Tensor, Tensor]:
    """What `sequential` gives: fused on a GPU that has the kernel, in chunks elsewhere, as one loop in an exported graph."""
    if torch.jit.is_tracing():
        answers_BTD, state_BDN = scripted(_loop)(*steps, decay_DN, state_BDN)
        return answers_BTD, state_BDN
    if steps.x_BTD.is_cuda and fused_kernel() and not state_BDN.any():
        return _fused(steps, decay_DN)
    return chunked(steps, decay_DN, state_BDN)


def chunked(steps: Steps, decay_DN: Tensor, state_BDN: Tensor) -> tuple[Tensor, Tensor]:
    """All chunks at once from nothing, step by step; then what each leaves to the next; then what that adds.

    That is twice the work in a sixth of the calls or fewer: quicker while a step is small, and left alone where it is not.
    """
    rows, count, channels = steps.x_BTD.shape
    chunks = int(count**0.5)
    if chunks < 2 or state_BDN.numel() > SMALL:
        return sequential(steps, decay_DN, state_BDN)
    length = -(-count // chunks)
    cut = Steps(*(_cut(part, chunks, length) for part in steps))  # C: the chunks of all rows
    empty_CDN = state_BDN.new_zeros(rows * chunks, *state_BDN.shape[1:])
    own_CLD, left_CDN = sequential(cut, decay_DN, empty_CDN)
    elapsed_CLD = cut.delta_BTD.cumsum(1)
    kept_BCDN = torch.exp(elapsed_CLD[:, -1, :, None] * decay_DN).unflatten(0, (rows, chunks))
    left_BCDN = left_CDN.unflatten(0, (rows, chunks))
    before = []
    for kept_BDN, left_BDN in zip(kept_BCDN.unbind(1), left_BCDN.unbind(1), strict=True):
        before.append(state_BDN)
        state_BDN = kept_BDN * state_BDN + left_BDN
    before_CDN = torch.stack(before, 1).flatten(0, 1)
    added = [
        ((torch.exp(elapsed_CD[..., None] * decay_DN) * before_CDN) @ out_CN[..., None])[..., 0]
        for elapsed_CD, out_CN in zip(elapsed_CLD.unbind(1), cut.out_BTN.unbind(1), strict=True)
    ]
    answers_BTD = (own_CLD + torch.stack(added, 1)).reshape(rows, -1, channels)
    return answers_BTD[:, :count], state_BDN


def _cut(x_BTX: Tensor, chunks: int, length: int) -> Tensor:
    """[B*C, L, X]; the last chunk is filled up with steps of no delta, which change nothing."""
    filled = functional.pad(x_BTX, (0, 0, 0, chunks * length - x_BTX.shape[1]))
    return filled.unflatten(1, (chunks, length)).flatten(0, 1)


def dual(steps: Steps, decay_H: Tensor, state_BHPN: Tensor) -> tuple[Tensor, Tensor]:
    """h_t = exp(delta_t A) h_(t-1) + delta_t x_t B_t';  y_t = h_t C_t,  with one A a head; in chunks as in sec. 6."""
    if torch.jit.is_tracing() or steps.x_BTD.shape[1] <= DUAL_CHUNK:
        return _dual_chunk(steps, decay_H, state_BHPN)
    parts = []
    # taken apart at once, as in `sequential`
    for cut in zip(*(part.split(DUAL_CHUNK, 1) for part in steps), strict=True):
        part, state_BHPN = _dual_chunk(Steps(*cut), decay_H, state_BHPN)
        parts.append(part)
    return torch.cat(parts, 1), state_BHPN


def _dual_chunk(steps: Steps, decay_H: Tensor, state_BHPN: Tensor) -> tuple[Tensor, Tensor]:
    """Steps see one another as in attention (sec. 6.1), and what came before through the state (sec. 6.2)."""
    x_BTHP, delta_BTH, in_BTN, out_BTN = steps
    log_BHT = (delta_BTH * decay_H).transpose(1, 2).cumsum(2)
    all_BH1 = (delta_BTH * decay_H).sum(1)[..., None]
    # From s to t there is only decay; what lies above the diagonal is made so small that its exponential is nothing.
    later_TS = torch.ones(x_BTHP.shape[1], x_BTHP.shape[1], dtype=x_BTHP.dtype, device=x_BTHP.device).triu(1) * -1e9
    kept_BHTS = torch.exp((log_BHT[..., :, None] - log_BHT[..., None, :]).clamp_max(0.0) + later_TS)
    alike_BTS = out_BTN @ in_BTN.transpose(1, 2)
    entering_BHTP = (delta_BTH[..., None] * x_BTHP).transpose(1, 2)
    inside_BHTP = (kept_BHTS * alike_BTS[:, None]) @ entering_BHTP
    before_BHTP = torch.exp(log_BHT)[..., None] * (out_BTN[:, None] @ state_BHPN.transpose(2, 3))
    until_BHT = torch.exp((all_BH1 - log_BHT).clamp_max(0.0))
    gained_BHPN = (until_BHT[..., None] * entering_BHTP).transpose(2, 3) @ in_BTN[:, None]
    state_BHPN = torch.exp(all_BH1)[..., None] * state_BHPN + gained_BHPN
    return (inside_BHTP + before_BHTP).transpose(1, 2), state_BHPN


def dual_sequential(steps: Steps, decay_H: Tensor, state_BHPN: Tensor) -> tuple[Tensor, Tensor]:
    """The definition of `dual`: the other scan, with a head's decay for each of its channels and numbers."""
    x_BTHP, delta_BTH, in_BTN, out_BTN = steps
    rows, _, heads, channels = x_BTHP.shape
    numbers = in_BTN.shape[2]
    decay_DN = decay_H.repeat_interleave(channels)[:, None].expand(-1, numbers)
    flat = Steps(x_BTHP.flatten(2), delta_BTH.repeat_interleave(channels, 2), in_BTN, out_BTN)
    answers_BTD, state_BDN = sequential(flat, decay_DN, state_BHPN.flatten(1, 2))
    return answers_BTD.unflatten(2, (heads, channels)), state_BDN.view(rows, heads, channels, numbers)


@cache
def fused_kernel() -> bool:
    """Whether `mamba-ssm` and its kernel for a GPU are installed."""
    return find_spec("mamba_ssm") is not None


def _fused(steps: Steps, decay_DN: Tensor) -> tuple[Tensor, Tensor]:
    """mamba-ssm's kernel, which starts from nothing and has time last."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: PLC0415 - only where a GPU has it

    x_BDT, delta_BDT, in_BNT, out_BNT = (part.transpose(1, 2).contiguous() for part in steps)
    answers_BDT, state_BDN = selective_scan_fn(x_BDT, delta_BDT, decay_DN, in_BNT, out_BNT, return_last_state=True)
    return answers_BDT.transpose(1, 2), state_BDN


def _loop(  # noqa: PLR0917 - scripting knows tensors best
    x_BTD: Tensor, delta_BTD: Tensor, in_BTN: Tensor, out_BTN: Tensor, decay_DN: Tensor, state_BDN: Tensor
) -> tuple[Tensor, Tensor]:
    """`sequential` in words that can be scripted. Live, few steps are put together this way."""
    kept_BTDN = torch.exp(delta_BTD[..., None] * decay_DN)
    added_BTDN = (delta_BTD * x_BTD)[..., None] * in_BTN[:, :, None]
    answers_BTD = x_BTD[:, :0]
    for t in range(x_BTD.shape[1]):
        state_BDN = kept_BTDN[:, t] * state_BDN + added_BTDN[:, t]
        answers_BTD = torch.cat((answers_BTD, (state_BDN * out_BTN[:, t, None]).sum(-1)[:, None]), 1)
    return answers_BTD, state_BDN
