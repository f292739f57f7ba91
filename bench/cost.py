"""What an answer costs: every system and every front, on one core, alone and in company.

Rows bring 100 ms of sound at a time, whole frames of it, as live streams do; the calls go through the engine's own backend,
in a process of its own for each system. With full-size encoders it is one answer to a whole window instead: these cost the
same whatever they learnt, so theirs are random.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import psutil
import torch

from clser.bench.table import number
from clser.engine.backends import open_voice
from clser.engine.jobs import Row
from clser.engine.records import SAMPLE_RATE_HZ
from clser.engine.shipped import installed, model_path
from clser.models.export import export
from clser.models.features.fronts import FRONTS, front
from clser.models.labels import HEADS
from clser.models.saved import Trained, load, save
from clser.models.systems import build, system_file, systems

Runtime = Literal["onnx", "torch"]

ROWS = (1, 8, 64)
LARGE_ROWS = (1, 8)
"""With full-size encoders 64 rows take minutes of a core, and a row of them what one of 8 does."""
SECONDS = 8.0
PACKET_SAMPLES = SAMPLE_RATE_HZ // 10
WHOLE_S = 10
LONG_S = 5.0
MB = 2**20


def measure(names: Sequence[str], rows: Sequence[int] = ROWS, *, full_size: bool = False) -> dict[str, object]:
    """A row a model: one that is installed, an .onnx file, a trained folder, or a system of the zoo with no training.

    `full_size`: of each system that takes a pretrained speech encoder, another row with a HuBERT of the base size.
    """
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="clser-bench-") as folder:
        found = []
        for name in names or [name for name in systems() if build(name, {}, HEADS).fronts]:
            print(f"{name} ...", file=sys.stderr, flush=True)
            found.append({"name": name, **_model(name, Path(folder), rows)})
        large = [
            {"name": name, **_full_size(name, Path(folder), LARGE_ROWS)}
            for name in (names or systems() if full_size else ())
            if name in systems() and "speech" in system_file(name).Config.__struct_fields__
        ]
    fronts = [{"name": name, "ms_per_s": _front_ms(name)} for name in FRONTS]
    return {"rows": found, "full_size": large, "fronts": fronts}


def _model(name: str, folder: Path, rows: Sequence[int]) -> dict[str, object]:
    parameters = None
    if name.endswith(".onnx") or name in installed():
        path = model_path(name)
    else:
        trained = Path(name).is_dir()
        system, about = load(Path(name)) if trained else (build(name, {}, HEADS), Trained(name, {}, HEADS))
        parameters = _parameters(system)
        path = folder / f"{Path(name).name}.onnx"
        export(system.eval(), path, about)
    return {"parameters": parameters, **_apart(path, "onnx", rows, SECONDS)}


def _full_size(name: str, folder: Path, rows: Sequence[int]) -> dict[str, object]:
    """Behind an encoder of HuBERT's base size, by torch."""
    print(f"{name}, full size ...", file=sys.stderr, flush=True)
    settings = {"speech": f"hub:{_hubert(folder / 'hubert')}"}
    system = build(name, settings, HEADS)
    path = save(folder / name, system, Trained(name, settings, HEADS))
    encoder = sum(
        p.numel() for p in import_module("transformers").HubertModel.from_pretrained(folder / "hubert").parameters()
    )
    told = _apart(path, "torch", rows, 0.0)
    return {"parameters": _parameters(system) + encoder, "encoder": "HuBERT base, random", **told}


def _parameters(system: Any) -> int:
    return sum(p.numel() for p in system.parameters())


def _hubert(folder: Path) -> Path:
    if not folder.exists():
        transformers: Any = import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(0)
        transformers.HubertModel(transformers.HubertConfig()).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def _apart(path: Path, runtime: Runtime, rows: Sequence[int], seconds: float) -> dict[str, object]:
    """In a new process, so that what it holds is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        told: dict[str, object] = process.submit(played, str(path), runtime, tuple(rows), seconds).result()
        return told


def played(path: str, runtime: Runtime, rows: Sequence[int], seconds: float) -> dict[str, object]:
    """What a model costs for `seconds` of sound; 0: for one window. `memory_mb`: what it holds after rows of that many."""
    import_module({"onnx": "onnxruntime", "torch": "torch"}[runtime])
    torch.set_num_threads(1)
    process = psutil.Process()
    before = process.memory_info().rss
    voice = open_voice(path, "cpu", runtime)
    card = voice.card
    window_s = card.window_frames * card.frame_samples / SAMPLE_RATE_HZ
    ms: dict[str, float] = {}
    memory: dict[str, float] = {}
    for count in rows:
        ms[str(count)] = _streamed_ms(voice, count, seconds) if seconds else _window_ms(voice, count)
        memory[str(count)] = (process.memory_info().rss - before) / MB
    told: dict[str, object] = {"streams": card.streams, "memory_mb": memory}
    if seconds:
        rtf = {count: each / 100 for count, each in ms.items()}
        return {**told, "state_bytes": _state_bytes(path), "ms_per_100_ms": ms, "rtf": rtf}
    hop_s = (card.hop_frames or card.window_frames) * card.frame_samples / SAMPLE_RATE_HZ
    rtf = {count: each / 1e3 / hop_s for count, each in ms.items()}
    return {**told, "window_s": window_s, "hop_s": hop_s, "ms_per_answer": ms, "rtf": rtf}


def _state_bytes(path: str) -> int:
    onnxruntime: Any = import_module("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return sum(4 * int(np.prod(i.shape[1:])) for i in session.get_inputs() if i.name.startswith("state_"))


def _noise(samples: int) -> Any:
    return (3000 * np.random.default_rng(0).standard_normal(samples)).astype(np.int16)


def _window_ms(voice: Any, count: int) -> float:
    """Milliseconds a row for one answer to a whole window; the second of two calls."""
    frames = voice.card.window_frames
    pcm = np.resize(_noise(PACKET_SAMPLES * 8), frames * count * voice.card.frame_samples)
    for _ in range(2 if count == 1 else 1):
        began = time.perf_counter()
        voice.run([Row(slot, frames, fresh=True) for slot in range(count)], pcm)
        took = time.perf_counter() - began
    return 1e3 * took / count


def _streamed_ms(voice: Any, count: int, seconds: float) -> float:
    """Milliseconds a row for each 100 ms of its sound: all calls together, the best of three unless they are long."""
    sound = _noise(PACKET_SAMPLES * 8)
    best = spent = 0.0
    for once in range(3):
        took = 0.0
        for first, frames in _calls(voice.card.frame_samples, seconds):
            given = [Row(slot, frames, first) for slot in range(count)]
            pcm = np.resize(sound, frames * count * voice.card.frame_samples)
            began = time.perf_counter()
            voice.run(given, pcm)
            took += time.perf_counter() - began
        best, spent = (took if once == 0 else min(best, took)), spent + took
        if spent > LONG_S:
            break
    return 1e3 * best / count / (seconds * 10)


def _calls(frame_samples: int, seconds: float = SECONDS) -> Iterator[tuple[bool, int]]:
    """Whether it is the first, and how many whole frames each packet completes."""
    done = 0
    for packet in range(1, round(seconds * 10) + 1):
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
    lines = [f"{'ms a row per 100 ms':<24}{heads}{'state, kB':>11}{'held, MB':>11}{'parameters':>13}  streams"]
    for row in line["rows"]:
        cells = "".join(f"{number(ms, 3):>11}" for ms in row["ms_per_100_ms"].values())
        state = number(row["state_bytes"] / 1024, 0)
        held = number(max(row["memory_mb"].values()), 0)
        lines.append(
            f"{Path(row['name']).name:<24}{cells}{state:>11}{held:>11}{row['parameters'] or '-':>13}  {row['streams']}"
        )
    if line["full_size"]:
        heads = "".join(f"{f'{count} rows':>11}" for count in LARGE_ROWS)
        lines += ["", f"{'ms a row per window':<24}{heads}{'RTF of 1':>11}{'held, MB':>11}{'parameters':>13}"]
    for row in line["full_size"]:
        cells = "".join(f"{number(ms, 1):>11}" for ms in row["ms_per_answer"].values())
        alone, held = number(next(iter(row["rtf"].values())), 3), number(max(row["memory_mb"].values()), 0)
        lines.append(f"{row['name']:<24}{cells}{alone:>11}{held:>11}{row['parameters']:>13}")
    lines += ["", *(f"{each['name']:<24}{number(each['ms_per_s'], 2)} ms a second" for each in line["fronts"])]
    return lines
