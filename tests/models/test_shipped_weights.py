"""The shipped files: the contract an engine relies on, with onnxruntime alone; and that torch answers the same."""

import json
from importlib import resources

import numpy as np
import onnxruntime
import pytest

from clser.models.labels import HEADS

CLOSE = 1e-4
FRAME = 640


@pytest.fixture(scope="module")
def session():
    path = resources.files("clser.models.weights") / "voice_gru.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def zeros(session, rows):
    return {i.name: np.zeros((rows, *i.shape[1:]), np.float32) for i in session.get_inputs()[2:]}


def play(session, pcm, frames, state):
    logits, *after = session.run(None, {"pcm_BS": pcm, "frames_B": np.array(frames, np.int64), **state})
    return logits, dict(zip(state, after, strict=True))


def sound(rows, frames, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal((rows, frames * FRAME))).astype(np.float32)


def test_names_shapes_and_size(session):
    inputs, outputs = session.get_inputs(), session.get_outputs()
    assert [i.name for i in inputs[:2]] == ["pcm_BS", "frames_B"]
    assert outputs[0].name == "logits_BTH"
    assert all(i.name.startswith("state_") for i in inputs[2:])
    assert [o.name for o in outputs[1:]] == [i.name.replace("state_", "next_") for i in inputs[2:]]
    assert sum(int(np.prod(i.shape[1:])) for i in inputs[2:]) * 4 <= 64 * 1024
    assert (resources.files("clser.models.weights") / "voice_gru.onnx").stat().st_size <= 2 * 1024 * 1024


def test_metadata(session):
    about = json.loads(session.get_modelmeta().custom_metadata_map["clser"])
    assert about["contract"] == 1
    assert about["heads"] == list(HEADS)
    assert (about["sample_rate_hz"], about["frame_samples"]) == (16_000, FRAME)
    assert 1 / 7 < about["abstain_below"] < 1
    assert {"name", "version", "least_s", "affect_source", "licence", "trained_on"} <= set(about)


@pytest.mark.parametrize("seed", range(3))
def test_streamed_equals_whole(session, seed):
    pcm = sound(1, 40, seed)
    whole, end = play(session, pcm, [40], zeros(session, 1))
    state, parts, at = zeros(session, 1), [], 0
    sizes = np.random.default_rng(seed).integers(1, 5, 40)
    while at < 40:
        size = min(int(sizes[len(parts)]), 40 - at)
        part, state = play(session, pcm[:, at * FRAME : (at + size) * FRAME], [size], state)
        parts.append(part)
        at += size
    assert np.abs(np.concatenate(parts, 1) - whole).max() < CLOSE
    assert all(np.allclose(state[name], end[name], atol=CLOSE, rtol=CLOSE) for name in end)


def test_rows_keep_to_themselves_and_padding_touches_nothing(session):
    pcm, frames = sound(4, 3), [3, 0, 2, 1]
    _, begun = play(session, sound(4, 5, 1), [5] * 4, zeros(session, 4))
    together, after = play(session, pcm, frames, begun)
    for row, count in enumerate(frames):
        own = {name: value[row : row + 1] for name, value in begun.items()}
        if count == 0:
            assert all(np.array_equal(after[name][row : row + 1], own[name]) for name in own)
            continue
        alone, end = play(session, pcm[row : row + 1, : count * FRAME], [count], own)
        assert np.abs(together[row, :count] - alone[0]).max() < CLOSE
        assert all(np.allclose(after[name][row], end[name][0], atol=CLOSE, rtol=CLOSE) for name in end)


def test_silence_and_full_scale_give_finite_answers(session):
    for pcm in (np.zeros((1, 50 * FRAME), np.float32), np.sign(sound(1, 50)).astype(np.float32)):
        logits, after = play(session, pcm, [50], zeros(session, 1))
        assert np.isfinite(logits).all()
        assert all(np.isfinite(value).all() for value in after.values())


@pytest.mark.torch
def test_torch_answers_the_same():
    pytest.importorskip("torch")
    from safetensors.torch import load

    from clser.models.export import parity
    from clser.models.live import live
    from clser.models.zoo.voice_gru import VoiceGru

    net = VoiceGru()
    weights = resources.files("clser.models.weights")
    net.load_state_dict(load((weights / "voice_gru.safetensors").read_bytes()))
    with resources.as_file(weights / "voice_gru.onnx") as path:
        assert parity(live(net.eval()).eval(), path) < CLOSE
