"""The networks that are shipped: a row's numbers depend on its own sound only, however it is cut and whoever is beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from clser.clients.clips import demo_clip
from clser.engine.backends import Slots, open_vad, open_voice
from clser.engine.backends.devices import onnx_providers
from clser.engine.backends.onnx import OnnxVoice
from clser.engine.errors import FailedError, GivenError, MissingError
from clser.engine.jobs import Row
from clser.engine.records import Samples
from clser.engine.shipped import folder
from clser.engine.vad import VadConfig
from clser.models.evaluate import softmax
from clser.models.labels import NONE, PUBLISHED_AS

Run = Callable[[list[Row], Samples], np.ndarray]


def network(name: str) -> tuple[Run, int]:
    if name == "voice":
        voice = open_voice("voice", "cpu")
        return lambda rows, pcm: softmax(voice.run(rows, pcm)), voice.card.frame_samples
    vad = open_vad(VadConfig(network=name))  # type: ignore[arg-type]
    return vad.run, vad.frame_samples


@pytest.fixture(scope="module")
def speech() -> Samples:
    return np.asarray(soundfile.read(demo_clip(), dtype="int16", frames=64_000)[0])


@pytest.mark.parametrize("name", ["voice", "silero", "webrtc"])
def test_rows_do_not_disturb_each_other_and_cuts_do_not_matter(name: str, speech: Samples) -> None:
    run, size = network(name)
    counts = {0: 40, 1: 7, 5: 23}
    sounds = {slot: speech[slot * 5000 :][: count * size] for slot, count in counts.items()}
    alone = {slot: run([Row(slot, counts[slot], True)], sounds[slot]) for slot in counts}

    together, _ = network(name)
    got: dict[int, list[np.ndarray]] = {slot: [] for slot in counts}
    done, step = dict.fromkeys(counts, 0), {0: 16, 1: 1, 5: 5}
    while any(done[slot] < counts[slot] for slot in counts):
        rows = [
            Row(slot, min(step[slot], counts[slot] - done[slot]), done[slot] == 0)
            for slot in counts
            if done[slot] < counts[slot]
        ]
        pcm = np.concatenate([sounds[r.slot][done[r.slot] * size : (done[r.slot] + r.frames) * size] for r in rows])
        said, at = together(rows, pcm), 0
        for row in rows:
            got[row.slot].append(said[at : at + row.frames])
            at += row.frames
            done[row.slot] += row.frames
    for slot, count in counts.items():
        np.testing.assert_allclose(np.concatenate(got[slot]), alone[slot], atol=1e-4)
        assert len(alone[slot]) == count
    assert np.ptp(alone[0]) > 0.1, "it does hear something"


@pytest.mark.parametrize("name", ["voice", "silero", "webrtc"])
def test_a_fresh_row_knows_nothing_of_what_the_slot_heard_before(name: str, speech: Samples) -> None:
    run, size = network(name)
    first = run([Row(0, 20, True)], speech[: 20 * size])
    run([Row(0, 20, False)], speech[20 * size : 40 * size])
    assert (run([Row(0, 20, True)], speech[: 20 * size]) == first).all()


def test_silence_is_not_speech_and_speech_is(speech: Samples) -> None:
    for name in ("silero", "webrtc"):
        run, size = network(name)
        assert run([Row(0, 30, True)], np.zeros(30 * size, np.int16)).mean() < 0.1
        start = 16_000  # in the middle of the first phrase
        assert run([Row(0, 30, True)], speech[start : start + 30 * size]).mean() > 0.5


def test_the_shipped_model_says_what_it_is() -> None:
    card = open_voice("voice", "cpu").card
    assert card.name == "voice"
    assert set(card.heads) <= {*PUBLISHED_AS, NONE}
    assert card.licence
    assert len(card.digest) == 16


def test_slots_grow_start_at_zero_and_keep_apart() -> None:
    slots = Slots([(2,), (1, 3)])
    rows = [Row(4, 1, True), Row(1, 1, True)]
    states = slots.gather(rows)
    assert [state.shape for state in states] == [(2, 2), (2, 1, 3)]
    assert not any(state.any() for state in states)
    slots.scatter(rows, [np.array([[1, 2], [3, 4]], np.float32), np.ones((2, 1, 3), np.float32)])
    again = slots.gather([Row(1, 1, False), Row(9, 1, False), Row(4, 1, True)])
    assert again[0].tolist() == [[3, 4], [0, 0], [0, 0]]
    assert slots.gather([Row(4, 1, False)])[0].tolist() == [[1, 2]], "a fresh row forgets nothing until it is scattered"


@pytest.mark.parametrize("compute", ["gpu", "cuda:x", "cuda:-1", "", "cpu:0"])
def test_compute_that_makes_no_sense_is_refused(compute: str) -> None:
    with pytest.raises(GivenError, match="give cpu or cuda:N"):
        onnx_providers(compute)


def test_a_worker_computes_on_one_device() -> None:
    with pytest.raises(GivenError, match="on one device"):
        onnx_providers("cuda:0,cuda:1")


def test_half_precision_is_not_for_onnx() -> None:
    with pytest.raises(GivenError, match=r"set model\.backend=torch"):
        open_voice("voice", "cpu", "onnx", "half")


def test_a_file_for_torch_is_sent_there() -> None:
    with pytest.raises(GivenError, match=r"set model\.backend=torch"):
        open_voice("some.safetensors", "cpu", "onnx")


def test_a_folder_without_a_model_is_told_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no model\.safetensors and no model\.onnx"):
        open_voice(str(tmp_path), "cpu")


def test_a_folder_with_an_exported_model_is_played(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((folder() / "voice.onnx").read_bytes())
    assert open_voice(str(tmp_path), "cpu").card.name == "voice"


def test_a_missing_device_is_missing_and_a_broken_file_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: Exception) -> None:
        def session(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("clser.engine.backends.onnx.onnxruntime.InferenceSession", session)

    refuse(RuntimeError("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1"))
    with pytest.raises(MissingError, match="cannot use that device: CUDA failure 100"):
        open_voice("voice", "cpu")
    refuse(RuntimeError("Protobuf parsing failed"))
    with pytest.raises(GivenError, match="export it again"):
        open_voice("voice", "cpu")


def test_a_gpu_that_onnxruntime_quietly_left_for_the_cpu_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session(FakeSession):
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("clser.engine.backends.onnx.onnx_providers", lambda _: providers)
    monkeypatch.setattr("clser.engine.backends.onnx.onnxruntime.InferenceSession", lambda *_, **__: Session([], []))
    with pytest.raises(MissingError, match="could not load its CUDA provider"):
        OnnxVoice("voice", "cuda:0")


def test_a_model_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no such file"):
        open_voice(str(tmp_path / "absent.onnx"), "cpu")


class FakeSession:
    """An ONNX Runtime session whose model breaks its promise."""

    def __init__(self, inputs: list[str], outputs: list[str], answer: float = 0.0) -> None:
        self._inputs, self._outputs, self._answer = inputs, outputs, answer

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, shape=["B", 4]) for name in self._inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._outputs]

    def get_modelmeta(self) -> SimpleNamespace:
        about = {
            "name": "x", "version": "1", "sample_rate_hz": 16_000, "frame_samples": 640, "heads": ["anger", "calm"],
            "least_s": 0.5, "abstain_below": 0.4, "affect_source": "classes",
        }  # fmt: skip
        return SimpleNamespace(custom_metadata_map={"clser": json.dumps(about)})

    def run(self, _: object, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        rows = len(given["pcm_BS"])
        return [np.full((rows, 1, 2), self._answer, np.float32), np.zeros((rows, 4), np.float32)]


def with_session(monkeypatch: pytest.MonkeyPatch, session: FakeSession) -> OnnxVoice:
    monkeypatch.setattr("clser.engine.backends.onnx.onnxruntime.InferenceSession", lambda *_, **__: session)
    return OnnxVoice("voice", "cpu")


def test_a_model_that_breaks_the_contract_is_refused_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GivenError, match=r"lacks frames_B, next_a; see docs/models\.md"):
        with_session(monkeypatch, FakeSession(["pcm_BS", "frames", "state_a"], ["logits_BTH"]))


def test_a_model_that_answers_with_nan_is_said_to_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = with_session(
        monkeypatch, FakeSession(["pcm_BS", "frames_B", "state_a"], ["logits_BTH", "next_a"], float("nan"))
    )
    with pytest.raises(FailedError, match="NaN"):
        voice.run([Row(0, 1, True)], np.zeros(640, np.int16))
