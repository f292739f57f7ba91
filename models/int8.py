"""An exported file with weights of a byte each, checked by what it answers.

Letters: B rows, S samples, T frames, N answers, H heads.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from clser.models.errors import FailedError
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.onnx_files import player, quantise

AGREEMENT = 0.99
OPERATIONS = ("MatMul", "Gemm", "LSTM")
"""What ONNX Runtime multiplies faster in bytes. It has no such GRU, and its convolutions get slower."""
SHARES = (1.0, 0.5, 0.25)
"""Of the nodes, those with the largest weights first; fewer are tried where more change the answers."""
ROWS, SOUND_S = 24, 4.0
HEARD_S = (0.8, 1.3, 2.0, 3.1, 4.0)

Array = np.ndarray[Any, Any]


def to_int8(path: Path, card: Mapping[str, Any]) -> float:
    """Rewrites the file with 8-bit weights where that does no harm; gives back the share of labels that stayed the same."""
    names = _nodes(path)
    if not names:
        raise FailedError(
            f"{card['name']} has no weights that can be made smaller ({', '.join(OPERATIONS)}); export it without --int8"
        )
    sounds = list(spoken())
    before = labels(path, card, sounds)
    best = 0.0
    for share in SHARES:
        chosen = names[: max(1, round(share * len(names)))]
        small = path.with_suffix(".int8.onnx")
        try:
            quantise(path, small, OPERATIONS, nodes_to_quantize=chosen)
            model = onnx.load(str(small))
            ordered(model.graph)
            onnx.save(model, str(small))
            agreement = float((labels(small, card, sounds) == before).mean())
            if agreement >= AGREEMENT:
                small.replace(path)
                return agreement
        finally:
            small.unlink(missing_ok=True)
        best = max(best, agreement)
    raise FailedError(
        f"{card['name']}: with 8-bit weights only {best:.1%} of the labels stay the same, less than {AGREEMENT:.0%}; "
        "export it without --int8, or train it longer: answers that are nearly even turn over easily"
    )


def _nodes(path: Path) -> list[str]:
    """Nodes of the system itself that multiply by fixed weights, the largest first. The fronts stay exact: a quiet band
    beside a loud one is lost in eight bits."""
    graph = onnx.load(str(path)).graph
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer}
    found = [
        (max(sizes[name] for name in node.input if name in sizes), node.name)
        for node in graph.node
        if node.op_type in OPERATIONS
        and not node.name.startswith("/fronts/")
        and any(name in sizes for name in node.input)
    ]
    return [name for _, name in sorted(found, reverse=True)]


def ordered(graph: Any) -> None:
    """Puts nodes behind those they need. The quantiser forgets what a loop's body takes from outside."""
    made = {name for node in graph.node for name in node.output}
    left = [(node, _needed(node) & made) for node in graph.node]
    kept: list[Any] = []
    done: set[str] = set()
    while left:
        later = []
        for node, needs in left:
            if needs <= done:
                kept.append(node)
                done.update(node.output)
            else:
                later.append((node, needs))
        assert len(later) < len(left), "a graph that goes in circles"
        left = later
    del graph.node[:]
    graph.node.extend(kept)


def _needed(node: Any) -> set[str]:
    """The inputs of a node, and those of the nodes within it."""
    inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set(node.input).union(*(_needed(each) for graph in inner for each in graph.node))


def labels(path: Path, card: Mapping[str, Any], sounds: list[Array]) -> Array:
    """[N]: the label of every answer that the file gives about these sounds."""
    session = player(path)
    samples, out = card["frame_samples"], []
    if card["streams"] == "exactly":
        frames = len(sounds[0]) // samples
        states = {  # and nobody is known
            value.name: np.zeros((len(sounds), *value.shape[1:]), np.float32) for value in session.get_inputs()[2:]
        }
        pcm_BS = np.stack(sounds)[:, : frames * samples]
        given = {"pcm_BS": pcm_BS, "frames_B": np.full(len(sounds), frames), **states}
        return np.asarray(session.run(["logits_BTH"], given)[0].argmax(-1).reshape(-1))
    for heard_s in HEARD_S:
        frames = min(card["window_frames"], max(1, round(heard_s * SAMPLE_RATE_HZ / samples)))
        pcm_BS = np.stack(sounds)[:, : frames * samples]
        given = {"pcm_BS": pcm_BS, "frames_B": np.full(len(sounds), pcm_BS.shape[1] // samples)}
        out.append(session.run(["logits_B1H"], given)[0][:, 0].argmax(-1))
    return np.concatenate(out)


def spoken(seed: int = 0) -> Iterator[Array]:
    """Sounds that are something like voices: pulses at a gliding pitch through three resonances, in syllables, and noise."""
    random = np.random.default_rng(seed)
    count = round(SOUND_S * SAMPLE_RATE_HZ)
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    for row in range(ROWS):
        noise = random.standard_normal(count)
        if row % 6 == 0:
            yield (10 ** random.uniform(-3, -0.7) * noise).astype(np.float32)
            continue
        rate_hz, glide = random.uniform(2, 6), random.uniform(0.05, 0.4)
        pitch_hz = random.uniform(90, 320) * (1 + glide * np.sin(2 * np.pi * random.uniform(0.2, 2) * time_s))
        phase = np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
        formants_hz = random.uniform((300, 900, 2200), (900, 2200, 3200))
        voice = sum(_partial(phase, pitch_hz, k, formants_hz) for k in range(1, 25))
        syllables = np.clip(np.sin(2 * np.pi * rate_hz * time_s) + random.uniform(-0.2, 0.6), 0, 1)
        sound = syllables * voice + 10 ** random.uniform(-3, -1.5) * noise
        yield (10 ** random.uniform(-1.5, -0.3) * sound / np.abs(sound).max()).astype(np.float32)


def _partial(phase: Array, pitch_hz: Array, k: int, formants_hz: Array) -> Array:
    """The k-th harmonic, as loud as the resonances near it make it."""
    near = sum(1.0 / (1.0 + ((k * pitch_hz - formant) / 120.0) ** 2) for formant in formants_hz)
    return np.asarray(near * np.sin(2 * np.pi * k * phase))
