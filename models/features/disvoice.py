"""The 103 prosody features of DisVoice (Vasquez-Correa et al. 2018; release 0.1.10), of a whole utterance, in the order of its code.

Letters: S samples, T frames of 10 ms.

What it does and one would not guess is kept, for the numbers are to be those that published results rest on:
* a segment is a run of voiced (or unvoiced) frames, laid one frame late; the last run of each kind is left out;
* an unvoiced segment of more than 140 ms is a pause; ratios are of mean durations;
* a pitch contour that lasts to the end of the recording loses its last frame;
* 31 to 34 are means over segments of each segment's own statistics;
* moments are those of the population, kurtosis is the excess.

Two things are not: a feature that is undefined is 0 here, where the original stops or says that it is no number; and
digital silence is -120 dB, where the original says -1e30. The original takes its pitch from RAPT; here it is an argument.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clser.models.features.constants import HOP_SAMPLES, SAMPLE_RATE_HZ

Numbers = NDArray[np.float64]

STEP_S = HOP_SAMPLES / SAMPLE_RATE_HZ
FRAME_SAMPLES = 2 * HOP_SAMPLES
PAUSE_SAMPLES = round(0.14 * SAMPLE_RATE_HZ)
LOWEST_HZ, HIGHEST_HZ = 60.0, 350.0
SILENCE = 1e-12  # mean square, of a recording whose largest sample is 1
CONSTANT = 1e-15  # values that differ by no more than this share have no skewness


def _names() -> tuple[str, ...]:
    found = [f"F0{of}" for of in ("avg", "std", "max", "min", "skew", "kurt")]
    found += [f"F0{what}{of}" for of in ("avg", "std", "max", "min", "skw", "ku") for what in ("tilt", "mse")]
    found += [f"{place}F0{of}" for place in ("1", "last") for of in ("avg", "std", "max", "min", "skw", "ku")]
    found[found.index("1F0avg")] = "1F0mean"
    for kind in ("voiced", "unvoiced"):
        of_all = ("avg", "std", "skw", "kurtosis")
        found += [f"{of}{what}E{kind}" for what in ("", "tilt", "mse") for of in of_all]
        found += [
            f"{of}{place}E{kind}" for place in ("1", "last") for of in ("avg", "std", "max", "min", "skw", "kurtosis")
        ]
    found.append("Vrate")
    of_durations = ("avg", "std", "skw", "kurtosis", "max", "min")
    found += [f"{of}dur{kind}" for kind in ("voiced", "unvoiced", "pause") for of in of_durations]
    return (*found, "PVU", "PU", "UVU", "VVU", "VP", "UP")


NAMES = _names()
"""As DisVoice calls them. P, V and U are pauses, voiced and unvoiced segments."""


def disvoice(pcm_S: NDArray[Any], f0_hz_T: NDArray[Any] | None = None) -> Numbers:
    """[103] of a recording at 16 kHz and of any loudness.

    `f0_hz_T`: the pitch every 10 ms from the first sample on, 0 where unvoiced; None: that of `pitch`.
    """
    pcm_S = np.asarray(pcm_S, np.float64)
    assert pcm_S.ndim == 1
    contour_T = pitch(pcm_S) if f0_hz_T is None else np.asarray(f0_hz_T, np.float64)
    if not pcm_S.size or np.ptp(pcm_S) == 0:
        return np.zeros(len(NAMES))
    pcm_S = pcm_S - pcm_S.mean()
    pcm_S = pcm_S / np.abs(pcm_S).max()
    voiced = _segments(contour_T != 0, pcm_S)
    without = _segments(contour_T == 0, pcm_S)
    unvoiced = [segment for segment in without if len(segment) <= PAUSE_SAMPLES]
    pauses = [segment for segment in without if len(segment) > PAUSE_SAMPLES]
    found = [*_of_pitch(contour_T), *_of_energy(voiced), *_of_energy(unvoiced)]
    found += _of_durations(len(pcm_S), voiced, unvoiced, pauses)
    return np.nan_to_num(np.array(found, np.float64), nan=0.0)


def pitch(pcm_S: NDArray[Any]) -> Numbers:
    """[T]: this project's own tracker, 60 to 350 Hz, its delay taken off and its single odd frames mended."""
    # Torch is needed for this alone: whoever brings a contour goes without.
    import torch  # noqa: PLC0415

    from clser.models.features.prosody import PITCH_DELAY_MS, Prosody, f0_hz  # noqa: PLC0415

    late = round(PITCH_DELAY_MS / (1e3 * STEP_S)) - 1
    frames = -(-len(pcm_S) // HOP_SAMPLES)
    padded = np.pad(np.asarray(pcm_S, np.float32), (0, (frames + late) * HOP_SAMPLES - len(pcm_S)))
    net = Prosody(LOWEST_HZ, HIGHEST_HZ)
    with torch.no_grad():
        x_BTF, _ = net(torch.from_numpy(padded)[None], torch.tensor([frames + late]), net.start(1))
    return _mended(np.asarray(f0_hz(x_BTF)[0, late:].numpy(), np.float64))


def _mended(contour_T: Numbers) -> Numbers:
    """A frame that is voiced, or unvoiced, alone between two that are not becomes like them.

    RAPT, on whose contours these features rest, pays for each change; one frame that differs would cut a segment in two.
    """
    voiced_T = contour_T > 0
    beside_T = np.pad(voiced_T.astype(np.int8), 1, mode="edge")
    beside_T = beside_T[:-2] + beside_T[2:]
    around_T = np.pad(contour_T, 1)
    between_T = (around_T[:-2] + around_T[2:]) / 2
    return np.where(beside_T == 0, 0.0, np.where(~voiced_T & (beside_T == 2), between_T, contour_T))


def _segments(which_T: NDArray[np.bool_], pcm_S: Numbers) -> list[Numbers]:
    """The samples of each run but the last, from the second frame of the run to the first after it."""
    return [pcm_S[(first + 1) * HOP_SAMPLES : last * HOP_SAMPLES] for first, last in _runs(which_T)[:-1]]


def _runs(which_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where each run of True begins, and where it has ended."""
    change = np.diff(which_T.astype(np.int8), prepend=0, append=0)
    return list(zip(np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist(), strict=True))


def _of_pitch(contour_T: Numbers) -> list[float]:
    """Features 1 to 30."""
    voiced = contour_T[contour_T != 0]
    if not voiced.size:
        return [0.0] * 30
    pieces = [contour_T[first : min(last, len(contour_T) - 1)] for first, last in _runs(contour_T != 0)]
    pieces = [piece for piece in pieces if piece.size]
    lines = [_line(piece) for piece in pieces if len(piece) > 1] or [(0.0, 0.0)]
    tilts, errors = (_six(np.array(values)) for values in zip(*lines, strict=True))
    ends = [*_six(pieces[0]), *_six(pieces[-1])] if pieces else [0.0] * 12
    return [*_six(voiced), *(each for both in zip(tilts, errors, strict=True) for each in both), *ends]


def _of_energy(segments: list[Numbers]) -> list[float]:
    """Features 31 to 54 of voiced segments, 55 to 78 of unvoiced ones."""
    contours = [_energies_db(segment) for segment in segments]
    if len(contours) < 2:
        return [0.0] * 24
    long = [contour for contour in contours if len(contour) > 1]
    of_each = np.array([_four(contour) for contour in long]).reshape(-1, 4)
    lines = np.array([_line(contour) for contour in long]).reshape(-1, 2)
    first = next((contour for contour in contours if contour.size), None)
    # Of the two last segments the original looks at, and never at the first.
    last = next((contour for contour in contours[:0:-1][:2] if contour.size), None)
    ends = [0.0] * 6 if first is None else _six(first), [0.0] * 6 if last is None else _six(last)
    return [*(_mean(column) for column in of_each.T), *_four(lines[:, 0]), *_four(lines[:, 1]), *ends[0], *ends[1]]


def _of_durations(samples: int, *kinds: list[Numbers]) -> list[float]:
    """Features 79 to 103."""
    every = [np.array([len(segment) / SAMPLE_RATE_HZ for segment in segments]) for segments in kinds]
    found = [SAMPLE_RATE_HZ * len(kinds[0]) / samples]
    means = []
    for durations_s in every:
        mean, std, most, least, skew, kurtosis = _six(durations_s) if len(durations_s) > 1 else [0.0] * 6
        found += [mean, std, skew, kurtosis, most, least]
        means.append(mean)
    voiced, unvoiced, pause = means
    if not (voiced and unvoiced and pause):
        return [*found, *[0.0] * 6]
    both = voiced + unvoiced
    ratios = [pause / both, pause / unvoiced, unvoiced / both, voiced / both, voiced / pause, unvoiced / pause]
    return [*found, *ratios]


def _energies_db(segment: Numbers) -> Numbers:
    """Of frames of 20 ms every 10 ms, one fewer than there are steps."""
    starts = range(0, (len(segment) // HOP_SAMPLES - 1) * HOP_SAMPLES, HOP_SAMPLES)
    powers = [float(np.square(segment[start : start + FRAME_SAMPLES]).mean()) for start in starts]
    return np.asarray(10.0 * np.log10(np.maximum(np.array(powers), SILENCE)), np.float64)


def _line(contour: Numbers) -> tuple[float, float]:
    """Slope per second and mean square error of the straight line through a contour."""
    time_s = np.arange(len(contour)) * STEP_S
    slope, start = np.polyfit(time_s, contour, 1)
    return float(slope), float(np.square(contour - slope * time_s - start).mean())


def _mean(values: Iterable[float]) -> float:
    listed = np.array(list(values))
    return float(listed.mean()) if listed.size else np.nan


def _four(values: Numbers) -> list[float]:
    """Mean, deviation, skewness, kurtosis."""
    if not values.size:
        return [np.nan] * 4
    mean = values.mean()
    away = values - mean
    variance = np.square(away).mean()
    if np.isnan(variance) or variance <= (CONSTANT * mean) ** 2:
        return [float(mean), float(np.sqrt(variance)), np.nan, np.nan]
    skewness, kurtosis = (away**3).mean() / variance**1.5, (away**4).mean() / variance**2 - 3.0
    return [float(mean), float(np.sqrt(variance)), float(skewness), float(kurtosis)]


def _six(values: Numbers) -> list[float]:
    """Mean, deviation, largest, smallest, skewness, kurtosis."""
    mean, deviation, skewness, kurtosis = _four(values)
    return [mean, deviation, float(values.max()), float(values.min()), skewness, kurtosis]
