"""The shipped files: the contract an engine relies on, with onnxruntime alone; and that torch answers the same."""

import hashlib
import json
from importlib import resources

import numpy as np
import onnxruntime
import pytest

from clser.models.both_live import Fuser
from clser.models.evaluate import softmax
from clser.models.labels import HEADS, NONE
from clser.models.words_live import Reader

CLOSE = 1e-4
FRAME = 1280
ROOM = 16_000_000
"""Bytes of all that ships, weights to train on from among it."""
WEIGHTS = resources.files("clser.models.weights")


@pytest.fixture(scope="module", params=["voice", "voice_licensed"])
def session(request):
    path = WEIGHTS / f"{request.param}.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def zeros(session, rows):
    return {i.name: np.zeros((rows, *i.shape[1:]), np.float32) for i in session.get_inputs()[2:]}


def play(session, pcm, frames, given):
    """The probabilities, and what to give to the next call: the state that comes back, and the same knowledge of speakers."""
    logits, heard, *after = session.run(None, {"pcm_BS": pcm, "frames_B": np.array(frames, np.int64), **given})
    assert np.isfinite(logits).all() and np.isfinite(heard).all()
    states = [name for name in given if name.startswith("state_")]
    return softmax(logits), {"speaker_BX": given["speaker_BX"], **dict(zip(states, after, strict=True))}


def sound(rows, frames, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal((rows, frames * FRAME))).astype(np.float32)


def test_names_shapes_and_size(session):
    inputs, outputs = session.get_inputs(), session.get_outputs()
    assert [i.name for i in inputs[:3]] == ["pcm_BS", "frames_B", "speaker_BX"]
    assert [o.name for o in outputs[:2]] == ["logits_BTH", "heard_BX"]
    assert all(i.name.startswith("state_") for i in inputs[3:])
    assert [o.name for o in outputs[2:]] == [i.name.replace("state_", "next_", 1) for i in inputs[3:]]
    assert sum(int(np.prod(i.shape[1:])) for i in inputs[2:]) * 4 <= 128 * 1024


def test_all_that_ships_is_small_and_what_the_list_says():
    files = [path for path in WEIGHTS.iterdir() if path.name.endswith((".onnx", ".safetensors"))]
    assert sum(len(path.read_bytes()) for path in files) <= ROOM
    said = json.loads((WEIGHTS / "digests.json").read_bytes())
    assert said == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}


def test_metadata(session):
    about = json.loads(session.get_modelmeta().custom_metadata_map["clser"])
    assert about["contract"] == 1
    assert about["heads"] == [*(head for head in HEADS if head in about["heads"]), NONE]
    assert (about["sample_rate_hz"], about["frame_samples"]) == (16_000, FRAME)
    assert about["speaker_numbers"] == session.get_inputs()[2].shape[1]
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


def test_the_words_that_ship_are_read_in_any_language_and_joined_with_the_voice():
    with resources.as_file(WEIGHTS / "words.onnx") as words, resources.as_file(WEIGHTS / "both.onnx") as both:
        reader, fuser = Reader(words), Fuser(both)
    texts = ["I am so happy, this is wonderful!", "I hate you, get out!", "I am so scared", "Estoy muy triste hoy", ""]
    read = reader.read(texts)
    said = [reader.heads[n] for n in read.logits_BH.argmax(1)]
    assert said == ["happiness", "anger", "fear", "sadness", "neutral"]
    assert fuser.heads == (*HEADS, NONE)
    assert fuser.words_heads == reader.heads
    voice = np.random.default_rng(0).normal(size=(len(texts), len(fuser.heads))).astype(np.float32)
    nothing = np.zeros(len(texts), np.float32)
    alone = fuser.fuse(voice, read.logits_BH, read.vector_BD, nothing, nothing)
    assert np.allclose(softmax(alone.logits_BH), softmax(voice), atol=1e-6)
    heard = fuser.fuse(voice, read.logits_BH, read.vector_BD, nothing + 1.0, nothing)
    mistrusted = fuser.fuse(voice, read.logits_BH, read.vector_BD, nothing + 1.0, nothing + 1.0)
    assert (mistrusted.weights_B2[:, 1] < heard.weights_B2[:, 1]).mean() > 0.7


@pytest.mark.torch
@pytest.mark.parametrize("name", ["voice", "voice_licensed"])
def test_torch_answers_the_same(name):
    pytest.importorskip("torch")
    from clser.models import saved
    from clser.models.export import parity
    from clser.models.live import live

    with (
        resources.as_file(WEIGHTS / f"{name}.safetensors") as weights,
        resources.as_file(WEIGHTS / f"{name}.onnx") as path,
    ):
        system, about = saved.load(weights)
        assert parity(live(system, about.calibration).eval(), path) < CLOSE
