"""The shipped network in torch: what it says is what ONNX Runtime says, and its state lies where it computes."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import msgspec
from fakes import run
from safetensors.torch import save_file

from clser.clients.clips import demo_clip
from clser.engine.api import Engine
from clser.engine.backends import VoiceModel, open_voice
from clser.engine.backends.torch import DeviceSlots, TorchVoice
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import Row
from clser.engine.records import Result, Samples
from clser.engine.shipped import folder
from clser.models import saved, systems
from clser.models.evaluate import softmax
from clser.models.labels import HEADS
from clser.models.live import live

CLOSE = 1e-4
SHIPPED = folder() / "voice.safetensors"
SMALL = {"width": 32, "queries": 2, "hidden": 8, "manner": 8}


def small_voice() -> Any:
    torch.manual_seed(3)
    return systems.build("voice", SMALL, HEADS).eval()


@pytest.fixture(scope="module")
def speech() -> Samples:
    return np.asarray(soundfile.read(demo_clip(), dtype="int16", frames=240_000)[0])


def hear(voice: VoiceModel, speech: Samples, seed: int) -> np.ndarray:
    """What it makes of streams in different places, in batches that chance makes up; one starts anew on the way."""
    chance = np.random.default_rng(seed)
    frame = voice.card.frame_samples
    at = dict.fromkeys((0, 7, 2), 0)
    said = []
    for turn in range(60):
        slots = [slot for slot in at if chance.random() < 0.7] or [0]
        rows = [Row(slot, int(chance.integers(1, 6)), at[slot] == 0 or (slot == 2 and turn == 30)) for slot in slots]
        sounds = [speech[slot * 9000 + at[slot] * frame :][: rows[i].frames * frame] for i, slot in enumerate(slots)]
        said.append(voice.run(rows, np.concatenate(sounds)))
        for row in rows:
            at[row.slot] += row.frames
    return softmax(np.concatenate(said))


@pytest.mark.parametrize("model", ["voice", str(SHIPPED)])
def test_torch_says_what_onnx_says_and_has_the_same_card(model: str, speech: Samples) -> None:
    theirs, ours = open_voice("voice", "cpu"), open_voice(model, "cpu", "torch")
    np.testing.assert_allclose(hear(ours, speech, 1), hear(theirs, speech, 1), atol=CLOSE)
    assert ours.card.digest == saved.about_of(SHIPPED).digest
    assert msgspec.structs.replace(ours.card, digest=theirs.card.digest) == theirs.card


def test_half_precision_agrees_on_the_label(speech: Samples) -> None:
    full = hear(open_voice("voice", "cpu", "torch"), speech, 2)
    half = hear(open_voice("voice", "cpu", "torch", "half"), speech, 2)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.1
    assert (half.argmax(1) == full.argmax(1)).mean() > 0.98


def test_a_row_without_frames_gets_no_numbers_and_keeps_its_state(speech: Samples) -> None:
    voice = open_voice("voice", "cpu", "torch")
    frame = voice.card.frame_samples
    whole = voice.run([Row(0, 4, True)], speech[: 4 * frame])
    voice.run([Row(0, 2, True)], speech[: 2 * frame])
    both = voice.run([Row(0, 0, False), Row(1, 1, True)], speech[:frame])
    assert len(both) == 1
    np.testing.assert_allclose(voice.run([Row(0, 2, False)], speech[2 * frame : 4 * frame]), whole[2:], atol=CLOSE)


def test_slots_grow_start_at_zero_and_keep_apart() -> None:
    slots = DeviceSlots([(2,)], torch.device("cpu"))
    rows = [Row(4, 1, True), Row(1, 1, True)]
    at = slots.place(rows)
    assert not slots.gather(at, rows)[0].any()
    slots.scatter(at, [torch.tensor([[1.0, 2.0], [3.0, 4.0]])])
    again = [Row(1, 1, False), Row(9, 1, False), Row(4, 1, True)]
    assert slots.gather(slots.place(again), again)[0].tolist() == [[3, 4], [0, 0], [0, 0]]
    assert slots.gather(slots.place(rows[:1]), [Row(4, 1, False)])[0].tolist() == [[1, 2]], "not until it is scattered"


def test_nothing_on_the_way_leaves_the_device() -> None:
    """On torch's `meta`, where a tensor left behind on the CPU is an error as it is on a GPU."""
    device = torch.device("meta")
    net = live(small_voice()).to(device)
    slots = DeviceSlots(net.shapes(), device)
    rows = [Row(0, 3, True), Row(2, 2, False)]
    with device, torch.inference_mode():
        at = slots.place(rows)
        sound, frames = torch.zeros(2, 3 * 1280, device=device), torch.tensor([3, 2], device=device)
        known = torch.zeros(2, net.speaker_numbers, device=device)
        logits, *after = net(sound, frames, known, *slots.gather(at, rows))
        slots.scatter(at, after[1:])
    assert {tensor.device for tensor in (logits, *after)} == {device}
    assert logits.shape[:2] == (2, 3)


def test_an_engine_on_torch_says_what_one_on_onnx_says(speech: Samples) -> None:
    async def hear(backend: str) -> list[Result]:
        async with Engine.from_config(
            "live", "asr.recogniser=off", "bus.publish=", f"model.backend={backend}"
        ) as engine:
            stream = engine.open("a")
            await stream.feed(speech[:120_000])
            await stream.close()
            return [result async for result in stream.results() if result.final]

    ours, theirs = run(hear("torch")), run(hear("onnx"))
    assert [r.emotion.label for r in ours] == [r.emotion.label for r in theirs]
    assert {r.model.digest for r in ours} == {saved.about_of(SHIPPED).digest}
    for one, other in zip(ours, theirs, strict=True):
        assert one.voice.probabilities == pytest.approx(other.voice.probabilities, abs=2 * CLOSE)
    assert len(ours) >= 2


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_network_of_another_size_that_describes_itself_runs(tmp_path: Path) -> None:
    path = saved.save(tmp_path, small_voice(), saved.Trained("voice", SMALL, HEADS))
    voice = open_voice(str(path), "cpu", "torch")
    assert voice.card.digest == saved.about_of(path).digest
    assert voice.run([Row(0, 2, True)], np.zeros(2 * 1280, np.int16)).shape == (2, len(voice.card.heads))


def test_a_file_that_cannot_be_loaded_is_given(tmp_path: Path) -> None:
    mute, junk = (tmp_path / f"{name}.safetensors" for name in ("mute", "junk"))
    save_file(small_voice().state_dict(), mute)
    junk.write_bytes(b"no tensors here")
    other = saved.save(tmp_path / "other.safetensors", small_voice(), saved.Trained("voice", {"width": 64}, HEADS))
    for path, words in (
        (mute, "does not say what it is"),
        (junk, "no safetensors file"),
        (other, "do not fit the system voice"),
    ):
        with pytest.raises(GivenError, match=words):
            open_voice(str(path), "cpu", "torch")


def test_what_was_trained_is_published_under_the_digest_of_its_weights(tmp_path: Path) -> None:
    trained = saved.save(tmp_path, systems.build("voice", {}, HEADS), saved.Trained("voice", {}, HEADS))
    for model in (tmp_path, trained):
        card = open_voice(str(model), "cpu", "torch").card
        assert (card.name, card.digest) == ("voice", saved.about_of(trained).digest)


def test_a_file_of_the_other_kind_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(GivenError, match=r"set model\.backend=onnx"):
        open_voice("some.onnx", "cpu", "torch")
    for absent in (str(tmp_path / "absent.safetensors"), "no_such_model"):
        with pytest.raises(MissingError):
            open_voice(absent, "cpu", "torch")


# --- devices ----------------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="finds no GPU"):
        open_voice("voice", "cuda:0", "torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MissingError, match="there are 2 GPUs, counted from 0"):
        open_voice("voice", "cuda:2", "torch")


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "clser.engine.backends.torch")
    with pytest.raises(MissingError, match=r"pip install 'clser-stream\[torch\]'"):
        open_voice("voice", "cpu", "torch")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(("precision", "close"), [("full", 1e-3), ("half", 0.1)])
def test_a_gpu_says_what_the_cpu_says(precision: str, close: float, speech: Samples) -> None:
    voice = TorchVoice("voice", "cuda:0", precision)
    there, here = hear(voice, speech, 4), hear(open_voice("voice", "cpu"), speech, 4)
    np.testing.assert_allclose(there, here, atol=close)
    assert (there.argmax(1) == here.argmax(1)).mean() > 0.98
    assert all(table.device.type == "cuda" for table in voice._slots._tables)
