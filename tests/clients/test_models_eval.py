"""`clser-models eval`: the document's keys, which clips are scored, and the engine's own path."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny

from clser.clients.commands import eval as command
from clser.clients.commands import models, through_engine
from clser.models import evaluate
from clser.models.data.clips import read_sound
from clser.models.data.manifests import read_manifest
from clser.models.enrolment import MOST, enrolment
from clser.models.errors import GivenError, MissingError
from clser.models.labels import HEADS, PUBLISHED

KEYS = ["uar", "war", "macro_f1", "weighted_f1", "ece", "nll", "n", "classes", "per_class", "confusion"]
KEYS += ["stream", "enrol", "rtf", "model", "digest"]
SYSTEMS = Path(__file__).parent.parent / "models"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="a trained folder is played with torch")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    tiny.corpora(folder, names=("one",), speakers=3, each=2)
    tiny.zoo(folder / "zoo")
    return folder


def judge(place, capsys, *more, model="voice", manifest=None):
    manifest = manifest or place / "one" / "manifest.csv"
    asked = ["eval", "--model", str(model), "--manifest", str(manifest), "--json", "--zoo", str(place / "zoo"), *more]
    assert command.run(models._parser().parse_args(asked)) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_document_has_the_keys_that_others_read(place, capsys):
    found = judge(place, capsys)
    assert set(KEYS) <= set(found)
    assert found["n"] == 18
    assert found["classes"] == ["anger", "neutral", "sadness"]
    assert found["model"] == "voice"
    assert len(found["digest"]) == 16
    assert np.array(found["confusion"]).sum() == 18
    assert found["per_class"]["anger"].keys() == {"recall", "precision", "f1", "n"}
    assert (found["stream"], found["enrol"]) == (False, 0)
    assert 0.0 < found["rtf"] < 5.0


def test_only_the_classes_asked_for_are_scored_and_answered(place, capsys):
    found = judge(place, capsys, "--classes", "sad, angry")
    assert found["n"] == 12
    assert sorted(found["classes"]) == ["anger", "sadness"]
    assert np.array(found["confusion"]).shape == (2, 2)
    assert np.array(found["confusion"]).sum() == 12


def test_the_table_is_for_people(place, capsys):
    asked = ["eval", "--model", "voice", "--manifest", str(place / "one" / "manifest.csv")]
    assert command.run(models._parser().parse_args(asked)) == 0
    told = capsys.readouterr().out
    assert "95 % over speakers" in told
    assert "recall" in told
    assert len([line for line in told.splitlines() if line.startswith(("anger", "neutral", "sadness"))]) == 3


def test_a_manifest_beside_its_sound(place, capsys, tmp_path):
    moved = tmp_path / "list.csv"
    moved.write_text((place / "one" / "manifest.csv").read_text())
    assert judge(place, capsys, "--audio", str(place / "one"), manifest=moved)["n"] == 18


def test_a_clip_does_not_hear_its_company(place, capsys, tmp_path):
    """Batched with others, longer and shorter, each gets what it gets alone."""
    together = judge(place, capsys)["confusion"]
    head, *rows = (place / "one" / "manifest.csv").read_text().splitlines()
    alone = 0
    for row in rows[:4]:
        (tmp_path / "list.csv").write_text(f"{head}\n{row}\n")
        found = judge(
            place, capsys, "--audio", str(place / "one"), "--classes", row.split(",")[1], manifest=tmp_path / "list.csv"
        )
        alone += found["n"]
    assert alone == 4
    assert np.array(together).sum() == 18


# --- speakers that were heard before --------------------------------------------------------------------------------


def test_clips_that_are_heard_first_are_never_scored_and_always_the_same(place):
    clips = read_manifest(place / "one" / "manifest.csv")
    heard, scored = enrolment(clips)
    assert not {n for own in heard.values() for n in own} & set(scored)
    assert sorted({n for own in heard.values() for n in own} | set(scored)) == list(range(18))
    assert all(len(own) == 3 for own in heard.values())
    for who, own in heard.items():
        assert {clips[n].who for n in own} == {who}
    again, _ = enrolment(clips[::-1])
    assert {who: [17 - n for n in own] for who, own in again.items()} == heard
    assert enrolment(clips, seed=1)[1] != scored


def test_clips_of_the_speaker_change_what_the_shipped_model_says(place, capsys):
    found = [judge(place, capsys, "--enrol", many) for many in ("0", "3")]
    assert [f["n"] for f in found] == [9, 9]
    assert [f["enrol"] for f in found] == [0, 3]
    assert found[0]["nll"] != found[1]["nll"]
    with pytest.raises(GivenError, match=f"0 to {MOST}"):
        judge(place, capsys, "--enrol", "-1")


@needs_torch
@pytest.mark.torch
def test_what_cannot_be_enrolled_says_so(place, trained, capsys):
    with pytest.raises(GivenError, match="tiny cannot be enrolled"):
        judge(place, capsys, "--enrol", "3", model=place / "plain")


@pytest.fixture(scope="module")
def trained(place):
    torch = pytest.importorskip("torch")
    from clser.models import saved, systems

    torch.manual_seed(0)
    system = systems.build("tiny", {"enrols": True}, tiny.EMOTIONS, [place / "zoo"])
    about = saved.Trained("tiny", {"enrols": True}, tiny.EMOTIONS, saved.Calibration(1.2))
    saved.save(place / "trained", system, about)
    plain = systems.build("tiny", {"reads": True}, tiny.EMOTIONS, [place / "zoo"])
    saved.save(place / "plain", plain, saved.Trained("tiny", {"reads": True}, tiny.EMOTIONS))
    return place / "trained"


@needs_torch
@pytest.mark.torch
def test_a_trained_folder_hears_k_clips_first(place, trained, capsys):
    found = [judge(place, capsys, "--enrol", str(many), model=trained) for many in (0, 1, 2)]
    assert [f["n"] for f in found] == [9, 9, 9]
    assert [f["enrol"] for f in found] == [0, 1, 2]
    assert len({f["nll"] for f in found}) == 3
    assert judge(place, capsys, model=trained / "model.safetensors")["n"] == 18
    with pytest.raises(GivenError, match="tiny cannot be enrolled"):
        judge(place, capsys, "--enrol", "1", model=place / "plain")


@needs_torch
@pytest.mark.torch
def test_words_are_read_where_that_is_asked_for(place, trained, capsys):
    without, with_words = (judge(place, capsys, *more, model=place / "plain") for more in ((), ("--words",)))
    assert without["nll"] != with_words["nll"]
    with pytest.raises(GivenError, match="reads none"):
        judge(place, capsys, "--words", model=trained)


@pytest.mark.parametrize("more", [(), ("--stream",)])
def test_words_are_refused_where_nobody_would_read_them(place, capsys, more):
    with pytest.raises(GivenError, match=r"--words: .* is given none"):
        judge(place, capsys, "--words", *more)


@needs_torch
@pytest.mark.torch
def test_a_class_without_a_head_is_named(place, trained, capsys, tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text("file,emotion\n0_anger_0.wav,fear\n0_neutral_0.wav,neutral\n")
    with pytest.raises(GivenError, match="no head for fear"):
        judge(place, capsys, "--audio", str(place / "one"), model=trained, manifest=manifest)


def test_models_that_are_not_there(place, capsys):
    for model in ("voice_nothing", str(place / "none.onnx"), str(place / "none.safetensors")):
        with pytest.raises(MissingError, match=r"voice_nothing|none"):
            judge(place, capsys, model=model)


# --- through the engine -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_through_the_engine_and_a_clip_without_speech(place, capsys, tmp_path):
    """Tones are no speech to the engine's ear, or little: what got no final is counted, and answered by the prior."""
    head, *rows = (place / "one" / "manifest.csv").read_text().splitlines()
    soundfile.write(place / "one" / "hush.wav", np.zeros(8000), 16_000)
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join([head, *rows[:3], "hush.wav,neutral,one_0,male,", "hush.wav,boredom,one_1,male,"]))
    with pytest.raises(GivenError, match="stands at"):
        judge(place, capsys, "--audio", str(place / "one"), "--stream", manifest=manifest)
    manifest.write_text("\n".join([head, *rows[:3], "hush.wav,boredom,one_0,male,"]))
    found = judge(place, capsys, "--audio", str(place / "one"), "--stream", manifest=manifest)
    assert found["stream"] is True
    assert found["n"] == 4
    assert found["unanswered"] >= 1
    assert "boredom" not in found["classes"]  # the engine publishes it as neutral
    assert found["model"] == "voice"


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    """An exported system that knows speakers, a manifest of clips that are whole frames to every network, and the system."""
    torch = pytest.importorskip("torch")
    from clser.models import export, saved, systems

    folder = tmp_path_factory.mktemp("knowing")
    tiny.corpora(folder, names=("one",), speakers=2, each=3, seconds=0.96)
    for path in sorted((folder / "one").glob("*.wav")):
        sound, _ = soundfile.read(path)
        loud = 0.1 * np.random.default_rng(len(sound)).standard_normal(6 * 2560)  # to every network, and to its ends
        soundfile.write(path, 0.7 * np.resize(sound, 6 * 2560) + loud, 16_000)
    torch.manual_seed(2)
    system = systems.build("small_system", {"enrols": True}, HEADS, [SYSTEMS]).eval()
    with torch.no_grad():
        system.leave.weight.mul_(30.0)  # or nobody's speaker would matter
    export.export(system, folder / "model.onnx", saved.Trained("small_system", {}, HEADS, abstain_below=0.0))
    return folder, system


def offline(clips, system, known_NX):
    """[N, 7]: what the system answers for the whole clips, and what each tells of its speaker."""
    import torch

    from clser.models.live import Live

    net = Live(system).eval()
    pcm_BS = torch.from_numpy(np.stack([read_sound(clip) for clip in clips]))
    frames_B = torch.full((len(clips),), pcm_BS.shape[1] // system.frame_samples)
    with torch.no_grad():
        state = [torch.zeros(len(clips), *shape) for shape in net.shapes()]
        logits_NTH, told_NX, *_ = net(pcm_BS, frames_B, torch.from_numpy(known_NX), *state)
    return evaluate.published(evaluate.softmax(logits_NTH[:, -1].numpy())), told_NX.numpy()


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize("many", [0, 1, 2])
def test_the_engine_hears_k_clips_first_and_then_each_clip_alone(knowing, many):
    """To the last digit that is published what whole clips give; a clip in two utterances hears no more than others do."""
    folder, system = knowing
    clips = read_manifest(folder / "one" / "manifest.csv")
    heard, scored = enrolment(clips)
    first = [clips[n] for own in heard.values() for n in own[:many]]
    asked = [clips[n] for n in scored]
    all_is_speech = ("vad.network=webrtc", "vad.on=0", "vad.off=0")
    said, unanswered, _ = through_engine.hear(str(folder / "model.onnx"), asked, first, all_is_speech)
    nobody = np.zeros((len(clips), system.speaker_numbers), np.float32)
    alone, told_NX = offline(clips, system, nobody)
    known = {who: told_NX[own[:many]].sum(0) for who, own in heard.items()}
    expected, _ = offline(asked, system, np.stack([known[clip.who] for clip in asked]))
    assert unanswered == 0
    np.testing.assert_allclose(said, expected, atol=2e-4)
    if many:
        assert np.abs(said - alone[scored]).max() > 0.01


@needs_torch
@pytest.mark.torch
@pytest.mark.slow
def test_the_command_enrols_through_the_engine(knowing, place, capsys):
    folder, _ = knowing
    manifest = folder / "one" / "manifest.csv"
    found = judge(place, capsys, "--stream", "--enrol", "2", model=folder / "model.onnx", manifest=manifest)
    assert (found["stream"], found["enrol"], found["model"]) == (True, 2, "small_system")
    assert found["n"] == len(enrolment(read_manifest(manifest))[1])


def final(begin, end, **probabilities):
    class One:
        start_sample, end_sample = begin, end

        class emotion:  # noqa: N801 - it stands for a field
            pass

    One.emotion.probabilities = {name: probabilities.get(name, 0.0) for name in PUBLISHED}
    return One


def test_finals_count_by_how_long_their_speech_is():
    said = through_engine.combine([final(0, 3000, anger=1.0), final(5000, 6000, sadness=1.0)])
    assert said[PUBLISHED.index("anger")] == pytest.approx(0.75)
    assert said[PUBLISHED.index("sadness")] == pytest.approx(0.25)


def test_without_a_final_the_prior_answers():
    said = through_engine.combine([])
    assert said.sum() == pytest.approx(1.0)
    assert said.argmax() == PUBLISHED.index("neutral")
    assert said.max() - said.min() < 1e-5
