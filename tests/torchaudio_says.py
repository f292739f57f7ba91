"""Mel bands, MFCC and slopes by torchaudio, of a sound made here: what ours are held against.

`python tests/torchaudio_says.py tests/golden/torchaudio.npz` writes them down, for machines where torchaudio cannot
be imported (its compiled part wants the very torch it was made for). It was run with torch 2.11.0 and torchaudio 2.11.0.
"""

import sys
from pathlib import Path

import numpy as np
import torch

FRAMINGS = {"25_10": (400, 160), "40_20": (640, 320)}
BANDS = 40
EVERY = 3
"""Of the frames, these are kept: what is left out differs in nothing."""


def sound(seconds: float = 1.6) -> torch.Tensor:
    """[S] at 16 kHz: two chirps and noise that swells, with a silence of digital zeros near the end."""
    samples = round(16_000 * seconds)
    t = np.arange(samples) / 16_000
    chirps = 0.3 * np.sin(2 * np.pi * (120 * t + 900 * t**2)) + 0.1 * np.sin(2 * np.pi * (7_000 * t - 1_500 * t**2))
    noise = 0.02 * t * np.random.default_rng(7).standard_normal(samples)
    made = chirps * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)) + noise
    made[round(0.8 * samples) : round(0.9 * samples)] = 0.0
    return torch.from_numpy(made.astype(np.float32))


def torchaudio_says(window: int, hop: int) -> dict[str, np.ndarray]:
    """[T, ...] of the same windows as ours: torchaudio has no causal one, so zeros are put before the sound."""
    from torchaudio.functional import compute_deltas
    from torchaudio.transforms import MFCC

    pcm_S = torch.nn.functional.pad(sound(), (window - hop, 0))
    mels = {"n_fft": window, "hop_length": hop, "center": False, "n_mels": BANDS, "f_max": 8_000.0, "mel_scale": "htk"}
    mfcc = MFCC(16_000, BANDS // 2, log_mels=True, melkwargs=mels)
    cepstra_CT = mfcc(pcm_S)
    deltas_CT = compute_deltas(cepstra_CT, win_length=5)
    said = {"mel": mfcc.MelSpectrogram(pcm_S), "mfcc": cepstra_CT, "delta": deltas_CT}
    said["delta2"] = compute_deltas(deltas_CT, win_length=5)
    return {name: x.numpy().T for name, x in said.items()}


if __name__ == "__main__":
    said = {
        f"{name}_{what}": x[::EVERY]
        for name, framing in FRAMINGS.items()
        for what, x in torchaudio_says(*framing).items()
    }
    np.savez_compressed(Path(sys.argv[1]), **{name: x[:, :13] if "mel" not in name else x for name, x in said.items()})
