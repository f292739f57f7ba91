"""How well the streamed pitch agrees with a reference on real speech, and what the prosody track costs.

The reference is Praat's autocorrelation (the package praat-parselmouth) or Harvest (pyworld): trackers that see the whole
recording. The voicing was fitted, and the few constants chosen, on every second clip of the sample of seed 0: figures
are of the others (`--tuned` shows those of the former).
"""

import random
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import torch
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench.card import Setup
from clser.bench.table import number
from clser.engine.errors import GivenError, MissingError
from clser.models.data.corpora import Clip, read_clips
from clser.models.features.constants import HOP_SAMPLES, SAMPLE_RATE_HZ
from clser.models.features.prosody import PITCH_DELAY_MS, Prosody, ProsodyState, f0_hz

CORPORA = ("emodb", "emovo", "casia", "ravdess", "nemo")
CLIPS = 60
LOWEST_HZ, HIGHEST_HZ = 60.0, 550.0
GROSS = 0.2  # a pitch further off than this share is another pitch
LIVE_FRAMES, LIVE_ROWS = 10, (1, 32)
ROUNDS = 200

Numbers = NDArray[np.float64]


class Contour(Struct, frozen=True):
    """The pitch at some times; 0 Hz where unvoiced."""

    times_s: Numbers
    f0_hz: Numbers


class Agreement(Struct, frozen=True):
    """Percentages. Pitch errors are of the frames that both call voiced, voicing errors of all frames."""

    gross: float | None
    too_high: float | None
    too_low: float | None
    fine_cents: float | None
    """Median distance of the others."""
    voicing: float | None
    missed: float | None
    invented: float | None
    frames: int


def agreement(pairs: Sequence[tuple[Contour, Contour]]) -> Agreement:
    """Of ours and the reference, each reference frame against our nearest in time."""
    ours_hz, theirs_hz = [np.zeros(0)], [np.zeros(0)]
    for ours, theirs in pairs:
        after = np.searchsorted(ours.times_s, theirs.times_s).clip(1, len(ours.times_s) - 1)
        earlier = theirs.times_s - ours.times_s[after - 1] < ours.times_s[after] - theirs.times_s
        ours_hz.append(ours.f0_hz[after - earlier])
        theirs_hz.append(theirs.f0_hz)
    mine, wanted = np.concatenate(ours_hz), np.concatenate(theirs_hz)
    both = (mine > 0) & (wanted > 0)
    ratio = mine[both] / wanted[both]
    high, low = ratio > 1 + GROSS, ratio < 1 - GROSS
    cents = np.abs(1200 * np.log2(ratio[~(high | low)]))
    missed, invented = (mine == 0) & (wanted > 0), (mine > 0) & (wanted == 0)
    return Agreement(
        gross=_per_cent(high | low),
        too_high=_per_cent(high),
        too_low=_per_cent(low),
        fine_cents=float(np.median(cents)) if len(cents) else None,
        voicing=_per_cent(missed | invented),
        missed=_per_cent(missed),
        invented=_per_cent(invented),
        frames=len(wanted),
    )


def _per_cent(which: NDArray[np.bool_]) -> float | None:
    return 100.0 * float(which.mean()) if which.size else None


def sample(clips: Sequence[Clip], seed: int, count: int, tuned: bool = False) -> list[Clip]:
    """As many of each corpus, drawn by chance; `tuned`: the ones drawn in between, which the tracker was tuned on."""
    draw = random.Random(seed)
    picked: list[Clip] = []
    for corpus in CORPORA:
        of_it = [clip for clip in clips if clip.corpus == corpus]
        each = min(2 * max(1, count // len(CORPORA)), len(of_it))
        picked += draw.sample(of_it, each)[int(tuned) :: 2]
    return picked


def ours(net: Prosody, pcm: NDArray[np.float32]) -> tuple[Contour, float]:
    """The tracker's contour, with its delay taken off, and the seconds it took."""
    late = round(PITCH_DELAY_MS / 1e3 * SAMPLE_RATE_HZ)
    frames = -(-(len(pcm) + late) // HOP_SAMPLES)
    row = torch.from_numpy(np.pad(pcm, (0, frames * HOP_SAMPLES - len(pcm))))[None]
    begun = time.perf_counter()
    with torch.no_grad():
        x_BTF, _ = net(row, torch.tensor([frames]), net.start(1))
    took_s = time.perf_counter() - begun
    times_s = np.arange(1, frames + 1) * HOP_SAMPLES / SAMPLE_RATE_HZ - PITCH_DELAY_MS / 1e3
    return Contour(times_s, f0_hz(x_BTF)[0].numpy().astype(np.float64)), took_s


def _praat(pcm: NDArray[np.float32]) -> Contour:
    try:
        import parselmouth  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 (an optional package)
    except ImportError as error:
        raise MissingError(
            "--reference praat: parselmouth is not installed; run: pip install praat-parselmouth"
        ) from error
    sound = parselmouth.Sound(pcm.astype(np.float64), SAMPLE_RATE_HZ)
    pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=LOWEST_HZ, pitch_ceiling=HIGHEST_HZ)
    return Contour(np.asarray(pitch.xs()), np.asarray(pitch.selected_array["frequency"]))


def _harvest(pcm: NDArray[np.float32]) -> Contour:
    try:
        import pyworld  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 (an optional package)
    except ImportError as error:
        # It asks for pkg_resources, which later releases of setuptools no longer hold.
        raise MissingError(f"--reference harvest: {error}; run: pip install pyworld 'setuptools<81'") from error
    f0, times_s = pyworld.harvest(pcm.astype(np.float64), SAMPLE_RATE_HZ, LOWEST_HZ, HIGHEST_HZ, 10.0)
    return Contour(np.asarray(times_s), np.asarray(f0))


REFERENCES: dict[str, Callable[[NDArray[np.float32]], Contour]] = {"praat": _praat, "harvest": _harvest}


class _Flat(torch.nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    def __init__(self, net: Prosody) -> None:
        super().__init__()
        self.net = net

    def forward(self, pcm_BS: Any, frames_B: Any, hops_BKC: Any, past_BKC: Any) -> Any:
        x_BTF, state = self.net(pcm_BS, frames_B, ProsodyState(hops_BKC, past_BKC))
        return (x_BTF, *state)


def live_ms(net: Prosody) -> dict[str, float]:
    """Milliseconds of one core that ONNX Runtime takes for 100 ms of one row, by how many rows go together."""
    inputs = ["pcm", "frames", *ProsodyState._fields]
    outputs = ["x", *(f"next_{name}" for name in ProsodyState._fields)]
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    axes["pcm"][1], axes["x"][1] = "S", "T"
    told: dict[str, float] = {}
    with TemporaryDirectory(prefix="clser-bench-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its older exporter
        path = Path(folder) / "prosody.onnx"
        traced = (torch.zeros(2, 4 * HOP_SAMPLES), torch.tensor([4, 3]), *net.start(2))
        torch.onnx.export(
            _Flat(net), traced, str(path), dynamo=False, opset_version=18,
            input_names=inputs, output_names=outputs, dynamic_axes=axes,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for rows in LIVE_ROWS:
            pcm = 0.1 * torch.randn(rows, LIVE_FRAMES * HOP_SAMPLES, generator=torch.Generator().manual_seed(0))
            tensors = (pcm, torch.full((rows,), LIVE_FRAMES), *net.start(rows))
            feed = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
            told[str(rows)] = _median_ms(session, feed) / rows
    return told


def _median_ms(session: Any, feed: dict[str, Any]) -> float:
    took = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        session.run(None, feed)
        took.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(took))


def measure(setup: Setup, reference: str, count: int, tuned: bool) -> dict[str, object]:
    """The figures, for each corpus and all together."""
    if setup.corpora is None:
        raise GivenError("real speech is needed: give --corpora DIR, or set CLSER_CORPORA")
    torch.set_num_threads(1)
    track, net = REFERENCES[reference], Prosody(LOWEST_HZ, HIGHEST_HZ).eval()
    pairs: dict[str, list[tuple[Contour, Contour]]] = {corpus: [] for corpus in CORPORA}
    took_s = sound_s = 0.0
    for clip in sample(read_clips(setup.corpora, CORPORA), setup.seed, count, tuned):
        pcm, rate_hz = soundfile.read(clip.path, dtype="float32", always_2d=True)
        if rate_hz != SAMPLE_RATE_HZ:
            raise GivenError(f"{clip.path}: {rate_hz} Hz; {SAMPLE_RATE_HZ} Hz is asked for")
        mine, seconds = ours(net, np.ascontiguousarray(pcm[:, 0]))
        took_s, sound_s = took_s + seconds, sound_s + len(pcm) / SAMPLE_RATE_HZ
        pairs[clip.corpus].append((mine, track(pcm[:, 0])))
    return {
        "reference": reference,
        "clips": sum(len(each) for each in pairs.values()),
        "tuned_on_these": tuned,
        "all": agreement([pair for each in pairs.values() for pair in each]),
        "corpora": {corpus: agreement(each) for corpus, each in pairs.items()},
        "delay_ms": PITCH_DELAY_MS,
        "rtf_torch_whole": took_s / sound_s,
        "onnx_ms_per_100_ms_by_rows": live_ms(net),
    }


def table(line: dict[str, Any]) -> list[str]:
    names = ("gross", "too_high", "too_low", "voicing", "missed", "invented", "fine_cents", "frames")
    rows = [f"{'%':<10}" + "".join(f"{name:>11}" for name in names)]
    for corpus, each in {**line["corpora"], "all": line["all"]}.items():
        rows.append(f"{corpus:<10}" + "".join(f"{number(getattr(each, name)):>11}" for name in names))
    cost = ", ".join(f"{number(ms, 3)} ms in rows of {rows}" for rows, ms in line["onnx_ms_per_100_ms_by_rows"].items())
    return [*rows, "", f"100 ms of sound, one core, ONNX Runtime: {cost}"]
