"""Systems that read words themselves, live: voice and words in the lane `both` are what one call with both says offline."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from clser.engine.backends import Numbers, open_voice
from clser.engine.backends.join import Pooled, by_published, open_joiner, softmax, unknown
from clser.engine.backends.reading import Read, divergence, shares
from clser.engine.backends.torch import TorchVoice
from clser.engine.jobs import CLASSES, Row
from clser.engine.records import Samples
from clser.models import saved, systems
from clser.models.answers import tokeniser_of
from clser.models.labels import HEADS
from clser.models.live import live
from clser.models.systems import WORDS
from clser.models.tensors import Sequences

CLOSE = 1e-4
SMALL = {"width": 32, "layers": 1, "encoder_layers": 1, "words_width": 16, "words_inner": 8, "attention_heads": 2}
ACMF = {"width": 32, "encoder_width": 16, "layers": 1, "attention_heads": 2, "feed_forward": 16}
NOTHING: Samples = np.zeros(0, np.int16)
TEXTS = ["the cat sat on a mat", "", "oh no", "why did you say that"]
CALIBRATION = saved.Calibration(1.5, tuple(0.1 * n for n in range(len(HEADS))))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`hub:` names of small random checkpoints."""
    pytest.importorskip("transformers", reason="needs the train extra")
    import checkpoints

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("encoders")
    return {"speech": checkpoints.speech_encoder(folder / "a"), "words": checkpoints.text_encoder(folder / "b")}


def trained(folder: Path, name: str, settings: dict[str, Any]) -> Any:
    """A system that learnt nothing, saved as training saves one."""
    torch.manual_seed(3)
    system = systems.build(name, settings, HEADS).eval()
    saved.save(folder, system, saved.Trained(name, settings, HEADS, calibration=CALIBRATION))
    return system


def opened(folder: Path, precision: str = "full") -> tuple[TorchVoice, Read]:
    voice = open_voice(str(folder), "cpu", "torch", precision)
    joiner = open_joiner(voice)
    assert isinstance(voice, TorchVoice)
    assert isinstance(joiner, Read)
    return voice, joiner


def noise(frames: int, seed: int) -> Samples:
    return np.random.default_rng(seed).normal(0, 3000, frames * 640).astype(np.int16)


def told(voice: Numbers) -> Numbers:
    """The voice's logits, and numbers of a text model that nobody asks."""
    return np.concatenate((voice, np.ones((len(voice), CLASSES + 2), np.float32)), 1)


def offline(system: Any, pcm: Samples, text: str | None) -> Numbers:
    """What the system says of one sound and one text, without an engine."""
    net = live(system, CALIBRATION)
    with torch.no_grad():
        sound_1S = torch.from_numpy(pcm.astype(np.float32) / 32768)[None]
        silence = net.fronts.silence(1, torch.device("cpu"))
        given = net.hear(sound_1S, torch.tensor([len(pcm) // 640])) if len(pcm) else silence
        if text is not None:
            given[WORDS] = Sequences(*tokeniser_of(system.words)([text]))
        logits, _ = system(given, system.start(1))
        return np.asarray(net.calibrated(logits)[0, 0].numpy())


KINDS = ["own", "hub"]


def settings_of(kind: str, encoders: dict[str, str]) -> dict[str, Any]:
    return SMALL if kind == "own" else {**SMALL, **encoders}


@pytest.mark.parametrize("kind", KINDS)
def test_both_lanes_say_what_the_system_says_and_frames_are_computed_once(
    kind: str, encoders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = trained(tmp_path, "biformer", settings_of(kind, encoders))
    voice, joiner = opened(tmp_path)
    assert joiner.joins == "text"
    heard = []
    front = voice._net.fronts.forward
    monkeypatch.setattr(voice._net.fronts, "forward", lambda *given: heard.append(len(given[0])) or front(*given))
    lengths = (30, 40, 7, 55)
    sounds = [noise(n, seed) for seed, n in enumerate(lengths)]
    rows = [Row(slot, n, True, anew=True) for slot, n in enumerate(lengths)]
    said = voice.run(rows, np.concatenate(sounds))
    alone = said[np.cumsum(lengths) - 1]
    calls = len(heard)
    got = joiner.run([Row(slot, n, True) for slot, n in enumerate(lengths)], np.concatenate(sounds), told(alone), TEXTS)
    assert len(heard) == calls, "the frames are those of the voice's last answers"
    assert got.shape == (4, len(HEADS) + CLASSES + 2)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(alone[row], offline(system, sounds[row], None), atol=CLOSE)
        if not text:
            assert got[row, : len(HEADS)].tobytes() == alone[row].tobytes()
            np.testing.assert_allclose(got[row, len(HEADS) :], [*unknown(1)[0], 1.0, 0.0], atol=1e-6)
            continue
        both = offline(system, sounds[row], text)
        np.testing.assert_allclose(got[row, : len(HEADS)], both, atol=CLOSE)
        assert np.abs(both - alone[row]).max() > 100 * CLOSE
        words = offline(system, NOTHING, text)
        np.testing.assert_allclose(got[row, len(HEADS) : -2], by_published(words[None], HEADS)[0], atol=CLOSE)
        from_voice, from_words = (divergence(both[None], one[None])[0] for one in (alone[row], words))
        assert got[row, -2] == pytest.approx(from_words / (from_voice + from_words), abs=0.01)
        assert got[row, -2:].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sound_is_heard_anew_and_company_makes_no_difference(
    kind: str, encoders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = trained(tmp_path, "biformer", settings_of(kind, encoders))
    voice, joiner = opened(tmp_path)
    first, other = noise(30, 1), noise(30, 2)
    alone = voice.run([Row(0, 30, True, anew=True)], first)[-1:]
    rows, pcm = (
        [Row(0, 30, True), Row(5, 30, True), Row(6, 12, True)],
        np.concatenate((other, first, first[: 12 * 640])),
    )
    texts = ["oh no", "why", "the cat"]
    together = joiner.run(rows, pcm, told(np.repeat(alone, 3, 0)), texts)
    np.testing.assert_allclose(together[0, : len(HEADS)], offline(system, other, "oh no"), atol=CLOSE)
    np.testing.assert_allclose(together[1, : len(HEADS)], offline(system, first, "why"), atol=CLOSE)
    apart = _, joiner = opened(tmp_path)
    for row, text, own in zip(rows, texts, together, strict=True):
        begin = {0: 0, 5: 30, 6: 60}[row.slot] * 640
        got = joiner.run([row], pcm[begin : begin + row.frames * 640], told(alone), [text])
        np.testing.assert_allclose(got[0], own, atol=CLOSE)
    monkeypatch.setattr(apart[0]._net.fronts, "forward", None)
    joiner.run(
        [Row(6, 12, True)], first[: 12 * 640], told(alone), ["oh no, no"]
    )  # a text that was mended: frames are there


def test_a_suspect_text_and_a_row_without_sound_leave_the_voice_as_it_is(tmp_path: Path) -> None:
    trained(tmp_path, "biformer", SMALL)
    voice, joiner = opened(tmp_path)
    pcm = noise(30, 1)
    alone = voice.run([Row(0, 30, True, anew=True)], pcm)[-1:]
    rows = [Row(0, 30, True, suspect=True), Row(1, 0, True), Row(2, 30, True)]
    got = joiner.run(rows, np.concatenate((pcm, pcm)), told(np.repeat(alone, 3, 0)), ["oh no"] * 3)
    for row in (0, 1):
        assert got[row, : len(HEADS)].tobytes() == alone[0].tobytes()
        assert got[row, -2:].tolist() == [1.0, 0.0]
    assert (got[0, len(HEADS) : -2] == got[2, len(HEADS) : -2]).all(), "what the words say is said all the same"
    assert (got[2, : len(HEADS)] != alone[0]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_near(kind: str, encoders: dict[str, str], tmp_path: Path) -> None:
    trained(tmp_path, "biformer", settings_of(kind, encoders))
    pcm, found = noise(40, 1), []
    for precision in ("full", "half"):
        voice, joiner = opened(tmp_path, precision)
        alone = voice.run([Row(0, 40, True, anew=True)], pcm)[-1:]
        got = joiner.run([Row(0, 40, True)], pcm, told(alone), ["oh no"])
        assert got.dtype == np.float32
        found.append(softmax(np.concatenate((alone, got[:, : len(HEADS)]))))
    assert 0 < np.abs(found[0] - found[1]).max() < 0.1


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_acmf_net_runs_live_and_is_pooled_with_words(attention: str, tmp_path: Path) -> None:
    system = trained(tmp_path, "acmf_net", {**ACMF, "attention": attention})
    voice = open_voice(str(tmp_path), "cpu", "torch")
    assert voice.card.streams == ("window" if attention == "full" else "exactly")
    assert isinstance(open_joiner(voice), Pooled)
    pcm = np.random.default_rng(1).normal(0, 3000, 10 * 3200).astype(np.int16)
    whole = voice.run([Row(0, 10, True, anew=True)], pcm)[-1]
    parts = [voice.run([Row(1, n, n == 4), Row(2, 1, True)], np.concatenate((pcm[at * 3200 :][: n * 3200], pcm[:3200])))
             for at, n in ((0, 4), (4, 5))]  # fmt: skip
    last = voice.run([Row(1, 1, False, anew=True)], pcm[9 * 3200 :])[-1]
    assert parts[0].shape == (5, len(HEADS))
    np.testing.assert_allclose(last, whole, atol=CLOSE)
    net = live(system, CALIBRATION)
    with torch.no_grad():
        sound_1S = torch.from_numpy(pcm.astype(np.float32) / 32768)[None]
        logits = net.answer(net.hear(sound_1S, torch.tensor([10])))
    np.testing.assert_allclose(whole, logits[0, 0].numpy(), atol=CLOSE)


def test_a_share_is_how_near_the_answer_to_both_is() -> None:
    one, other = np.array([[3.0, 0.0, 0.0]], np.float32), np.array([[0.0, 3.0, 0.0]], np.float32)
    assert shares(one, one, other).tolist() == [[1.0, 0.0]]
    assert shares(other, one, other).tolist() == [[0.0, 1.0]]
    assert shares(one, one, one).tolist() == [[0.5, 0.5]]
    assert shares((one + other) / 2, one, other)[0, 0] == pytest.approx(0.5, abs=1e-6)
    assert divergence(one * 100, other * 100)[0] == pytest.approx(np.log(2))
