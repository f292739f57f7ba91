"""Made sounds with the pitch they were made with: what prosody over a whole recording is tested on."""

import numpy as np

HOP, RATE_HZ = 160, 16_000


def contour(*runs):
    """Runs of (frames, Hz at the start, Hz at the end), bent in between; 0 Hz is unvoiced."""
    parts = []
    for frames, first, last in runs:
        along = np.linspace(0.0, 1.0, frames)
        parts.append((first + (last - first) * along) * (1 + 0.1 * along * (1 - along) * (1 + frames % 3)))
    return np.concatenate(parts)


def sound(f0_T, seed):
    """A buzz where the contour is voiced, soft noise everywhere."""
    rng = np.random.default_rng(seed)
    hz = np.repeat(f0_T, HOP)
    phase = 2 * np.pi * np.cumsum(hz) / RATE_HZ
    swell = 1 + 0.5 * np.sin(2 * np.pi * np.arange(len(hz)) / 5_000)
    buzz = sum(np.cos(k * phase + k) / k for k in range(1, 9)) * (hz > 0)
    return (0.1 * buzz + 0.01 * rng.standard_normal(len(hz))) * swell


def shaky():
    rng = np.random.default_rng(11)
    parts = []
    for _ in range(14):
        voice = rng.uniform(80, 300) * (1 + 0.02 * rng.standard_normal(rng.integers(1, 40)))
        parts += [voice, np.zeros(rng.integers(1, 35))]
    return np.concatenate(parts)


def cases():
    """Sound and pitch by name."""
    contours = {
        "speech": contour(
            (22, 0, 0), (30, 120, 150), (6, 0, 0), (25, 160, 130), (20, 0, 0),
            (18, 140, 180), (9, 0, 0), (40, 200, 110), (30, 0, 0),
        ),
        "shaky": shaky(),
        "ends_voiced": contour(
            (10, 0, 0), (20, 100, 140), (8, 0, 0), (15, 180, 150), (18, 0, 0), (12, 150, 120), (5, 0, 0), (21, 130, 90)
        ),
        "one_run": contour((20, 0, 0), (50, 110, 160), (25, 0, 0)),
        "all_voiced": contour((60, 110, 160)),
        "all_unvoiced": contour((60, 0, 0)),
        "specks": contour(
            (5, 0, 0), (1, 120, 120), (2, 0, 0), (1, 130, 130), (20, 0, 0), (3, 140, 150), (1, 0, 0),
            (10, 150, 155), (16, 0, 0), (2, 130, 131), (3, 0, 0), (1, 99, 99), (4, 0, 0),
        ),
        "specks_last": contour(
            (1, 0, 0), (9, 120, 125), (2, 0, 0), (12, 130, 133), (1, 0, 0), (3, 140, 150),
            (17, 0, 0), (1, 150, 150), (1, 0, 0), (2, 130, 131), (3, 0, 0),
        ),
    }  # fmt: skip
    return {name: (sound(f0_T, seed), f0_T) for seed, (name, f0_T) in enumerate(contours.items())}
