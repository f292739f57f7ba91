"""What an answer costs: every system and every front, on one core, alone and in company.

Rows bring 100 ms of sound at a time, whole frames of it, as live streams do; the calls go through the engine's own backend.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch

from clser.bench.table import number
from clser.engine.backends import open_voice
from clser.engine.jobs import Row
from clser.engine.records import SAMPLE_RATE_HZ
from clser.engine.shipped import installed, model_path
from clser.models.export import export
from clser.models.features.fronts import FRONTS, front
from clser.models.labels import HEADS
from clser.models.saved import Trained, load
from clser.models.systems import build, systems

ROWS = (1, 8, 64)
SECONDS = 8.0
PACKET_SAMPLES = SAMPLE_RATE_HZ // 10
WHOLE_S = 10
LONG_S = 5.0


def measure(names: Sequence[str], rows: Sequence[int] = ROWS) -> dict[str, object]:
    """A row a model: one that is installed, an .onnx file, a trained folder, or a system of the zoo with no training."""
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="clser-bench-") as folder:
        found = []
        for name in names or [name for name in systems() if build(name, {}, HEADS).fronts]:
            print(f"{name} ...", file=sys.stderr, flush=True)
            found.append({"name": name, **_model(name, Path(folder), rows)})
    return {"rows": found, "fronts": [{"name": name, "ms_per_s": _front_ms(name)} for name in FRONTS]}


def _model(name: str, folder: Path, rows: Sequence[int]) -> dict[str, object]:
    parameters = None
    if name.endswith(".onnx") or name in installed():
        path = model_path(name)
    else:
        trained = Path(name).is_dir()
        system, about = load(Path(name)) if trained else (build(name, {}, HEADS), Trained(name, {}, HEADS))
        parameters = sum(p.numel() for p in system.parameters())
        path = folder / f"{Path(name).name}.onnx"
        export(system.eval(), path, about)
    voice = open_voice(str(path), "cpu")
    per_100_ms = {str(count): _streamed_ms(voice, count) for count in rows}
    return {
        "parameters": parameters, "streams": voice.card.streams, "state_bytes": _state_bytes(path),
        "ms_per_100_ms": per_100_ms, "rtf": {count: ms / 100 for count, ms in per_100_ms.items()},
    }  # fmt: skip


def _state_bytes(path: Path) -> int:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return sum(4 * int(np.prod(i.shape[1:])) for i in session.get_inputs() if i.name.startswith("state_"))


def _streamed_ms(voice: Any, count: int) -> float:
    """Milliseconds a row for each 100 ms of its sound: all calls of `SECONDS` together, the best of three unless they are long."""
    sound = (3000 * np.random.default_rng(0).standard_normal(PACKET_SAMPLES * 8)).astype(np.int16)
    best = spent = 0.0
    for once in range(3):
        took = 0.0
        for first, frames in _calls(voice.card.frame_samples):
            given = [Row(slot, frames, first) for slot in range(count)]
            pcm = np.resize(sound, frames * count * voice.card.frame_samples)
            began = time.perf_counter()
            voice.run(given, pcm)
            took += time.perf_counter() - began
        best, spent = (took if once == 0 else min(best, took)), spent + took
        if spent > LONG_S:
            break
    return 1e3 * best / count / (SECONDS * 10)


def _calls(frame_samples: int) -> Iterator[tuple[bool, int]]:
    """Whether it is the first, and how many whole frames each packet completes."""
    done = 0
    for packet in range(1, round(SECONDS * 10) + 1):
        whole = packet * PACKET_SAMPLES // frame_samples
        if whole > done:
            yield done == 0, whole - done
        done = whole


def _front_ms(name: str) -> float:
    """Milliseconds of one core for each second of sound, a whole recording at once, in torch."""
    net = front(name).eval()  # type: ignore[attr-defined]  # a front is an nn.Module too
    pcm_BS = 0.1 * torch.randn(1, WHOLE_S * SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(0))
    frames = pcm_BS.shape[1] // net.samples
    best = np.inf
    with torch.inference_mode():
        for _ in range(5):
            began = time.perf_counter()
            net(pcm_BS[:, : frames * net.samples], torch.tensor([frames]), net.start(1))
            best = min(best, time.perf_counter() - began)
    return float(1e3 * best / WHOLE_S)


def table(line: Mapping[str, Any]) -> list[str]:
    """For people."""
    counts = list(line["rows"][0]["ms_per_100_ms"]) if line["rows"] else []
    heads = "".join(f"{f'{count} rows':>11}" for count in counts)
    lines = [f"{'ms a row per 100 ms':<24}{heads}{'state, kB':>11}{'parameters':>13}  streams"]
    for row in line["rows"]:
        cells = "".join(f"{number(ms, 3):>11}" for ms in row["ms_per_100_ms"].values())
        state = number(row["state_bytes"] / 1024, 0)
        lines.append(f"{Path(row['name']).name:<24}{cells}{state:>11}{row['parameters'] or '-':>13}  {row['streams']}")
    lines += ["", *(f"{each['name']:<24}{number(each['ms_per_s'], 2)} ms a second" for each in line["fronts"])]
    return lines
