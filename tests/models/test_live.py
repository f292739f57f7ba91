"""A system with its fronts before it: streamed equals whole, and what cannot run live is refused."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path

import pytest
import soundfile

torch = pytest.importorskip("torch")

from clser.models import systems
from clser.models.answers import answer, tokeniser_of
from clser.models.batches import Batch
from clser.models.data.cache import FeatureCache
from clser.models.data.clips import Clip
from clser.models.data.front_features import by_front, samples_of
from clser.models.data.takes import Take
from clser.models.errors import GivenError, MissingError
from clser.models.examples import TakeFeatures, pad
from clser.models.export import HEARD_LOOSER, export
from clser.models.features.fronts import front
from clser.models.labels import HEADS
from clser.models.live import Fronts, Live, Pretrained, Windowed, card, live, windows
from clser.models.saved import Calibration, Trained
from clser.models.systems import WORDS
from clser.models.tensors import Sequences, leaves
from clser.models.words_now import Texts, no_words

pytestmark = pytest.mark.torch
CLOSE = 1e-4
HERE = [Path(__file__).parent]
OURS = [("voice", {}), ("small_system", {}), ("small_system", {"enrols": True})]


def system(name, **settings):
    torch.manual_seed(0)
    return systems.build(name, settings, HEADS, HERE).eval()


def sound(rows, samples, seed=0):
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(seed))


def zeros(net, rows):
    return [torch.zeros(rows, *shape) for shape in net.shapes()]


def speakers(net, rows, seed=1):
    """What is known of one speaker a row, as an argument of the network; nothing where it takes none."""
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(rows, net.speaker_numbers, generator=random)] if net.speaker_numbers else []


@pytest.mark.parametrize(("name", "settings"), OURS)
@torch.no_grad()
def test_streamed_equals_whole_and_company_makes_no_difference(name, settings):
    net = live(system(name, **settings)).eval()
    frame, frames = net.system.frame_samples, 11
    known = speakers(net, 3)
    pcm_BS, real_B = sound(3, frames * frame), torch.tensor([11, 4, 7])
    whole, *end = net(pcm_BS, real_B, *known, *zeros(net, 3))
    heard_of_all = [end.pop(0) for _ in known]
    state, done, parts = zeros(net, 3), torch.zeros(3, dtype=torch.long), []
    for size in (1, 4, 2, 3, 1):
        count_B = (real_B - done).clamp(0, size)
        part_BS = torch.zeros(3, size * frame)
        for row, count in enumerate(count_B.tolist()):
            part_BS[row, : count * frame] = pcm_BS[row, done[row] * frame : (done[row] + count) * frame]
        logits, *state = net(part_BS, count_B, *known, *state)
        for heard_BX, expected_BX in zip([state.pop(0) for _ in known], heard_of_all, strict=True):
            ends = (count_B > 0) & (done + count_B == real_B)
            assert torch.allclose(heard_BX[ends], expected_BX[ends], atol=HEARD_LOOSER * CLOSE)
            assert not heard_BX[count_B == 0].any()
        parts.append([logits[row, :count] for row, count in enumerate(count_B.tolist())])
        done += count_B
    for row, count in enumerate(real_B.tolist()):
        streamed = torch.cat([part[row] for part in parts])
        assert (streamed - whole[row, :count]).abs().max() < CLOSE
    assert all(torch.allclose(a, b, atol=CLOSE, rtol=CLOSE) for a, b in zip(state, end, strict=True))


@torch.no_grad()
def test_what_an_utterance_tells_does_not_depend_on_its_speaker_and_the_answer_does():
    net = live(system("small_system", enrols=True))
    pcm_BS, real_B = sound(2, 5 * 1280), torch.tensor([5, 3])
    nobody, somebody = (net(pcm_BS, real_B, known, *zeros(net, 2)) for known in (torch.zeros(2, 13), *speakers(net, 2)))
    assert not torch.equal(nobody[0], somebody[0])
    assert all(torch.equal(a, b) for a, b in zip(nobody[1:], somebody[1:], strict=True))
    assert nobody[1][:, 0].tolist() == [1.0, 1.0]
    given, _ = net.fronts(pcm_BS, real_B, net.fronts.start(2))
    assert torch.equal(net.system(given, net.system.start(2))[0], nobody[0]), "called as any system it knows nobody"


def test_the_states_names_are_those_of_its_fields_in_their_order():
    net = live(system("voice"))
    names = list(net.state_names())
    assert names[:2] == ["logmel_tail_BS", "logmel_low_BS"]
    assert {"level_B1", "manner_sums_BZ", "layers_0_recent_BKD"} < set(names)
    assert len(names) == len(set(names)) == len(net.shapes()) == len(list(leaves(net.start(2))))


@torch.no_grad()
def test_a_front_of_shorter_frames_gives_more_of_them():
    given, _ = Fronts(system("small_system"))(sound(2, 5 * 1280), torch.tensor([5, 3]), (front("logmel").start(2),))
    assert given["logmel"].x_BTD.shape[1] == 10
    assert given["logmel"].length_B.tolist() == [10, 6]


@torch.no_grad()
def test_calibration_comes_last():
    net = system("small_system")
    offsets = tuple(float(n) for n in range(len(HEADS)))
    plain, other = live(net), live(net, Calibration(2.0, offsets))
    pcm_BS, real_B = sound(1, 4 * 1280), torch.tensor([4])
    expected = plain(pcm_BS, real_B, *zeros(plain, 1))[0] / 2.0 + torch.tensor(offsets)
    assert torch.allclose(other(pcm_BS, real_B, *zeros(other, 1))[0], expected)
    with pytest.raises(GivenError, match="2 offsets for 9 heads"):
        live(net, Calibration(1.0, (0.0, 1.0)))


@pytest.mark.parametrize("streams", ["window", "end"])
@torch.no_grad()
def test_a_window_is_answered_as_if_it_were_alone(streams):
    net = live(system("small_system", streams=streams))
    assert isinstance(net, Windowed)
    pcm_BS, real_B = sound(3, 9 * 1280), torch.tensor([9, 2, 5])
    together = net(pcm_BS, real_B)
    assert together.shape == (3, 1, len(HEADS))
    for row, count in enumerate(real_B.tolist()):
        alone = net(pcm_BS[row : row + 1, : count * 1280], torch.tensor([count]))
        assert (together[row] - alone[0]).abs().max() < CLOSE


def test_windows_are_counted_in_the_systems_frames():
    assert windows(system("small_system")) == (0, 0)
    net = system("small_system", streams="window")
    assert windows(net) == (20, 5)
    net.window_s, net.hop_s = 0.3, 9.0
    assert windows(net) == (4, 4), "it answers once a window at least"
    assert windows(system("small_system", streams="end")) == (20, 0)


def test_the_card_says_how_it_streams():
    about = Trained("small_system", {}, HEADS, abstain_below=0.41239, trained_on=("emodb",), version="7")
    said = card(system("small_system"), about)
    assert (said["contract"], said["streams"], said["window_frames"], said["hop_frames"]) == (1, "exactly", 0, 0)
    assert (said["version"], said["abstain_below"], said["trained_on"]) == ("7", 0.4124, ["emodb"])
    said = card(system("small_system", streams="window"), about)
    assert (said["contract"], said["streams"], said["window_frames"], said["hop_frames"]) == (2, "window", 20, 5)
    assert said["frame_samples"] == 1280
    assert said["speaker_numbers"] == card(system("small_system"), about)["speaker_numbers"] == 0
    assert card(system("small_system", enrols=True), about)["speaker_numbers"] == 13
    assert card(system("small_system", enrols=True, streams="window"), about)["speaker_numbers"] == 0


def test_words_are_said_to_be_missing():
    """A system that reads as well runs on sound alone."""
    net = system("small_system")
    net.words = "hashed"
    fronts = Fronts(net)
    given, _ = fronts(sound(3, 1280), torch.tensor([1, 1, 0]), fronts.start(3))
    words = given["words"]
    assert isinstance(words, Sequences)
    assert words.x_BTD.shape[0] == 3
    assert words.length_B.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fronts": ()}, "hears nothing"),
        ({"fronts": ("hub:some/encoder",)}, r"hears its future; .*speech: own"),
        ({"frame_samples": 700}, "no multiple of the 640 samples in a frame of logmel"),
        ({"fronts": ("logmole",)}, "there is none of this name"),
    ],
)
def test_what_cannot_run_live_is_refused(changes, words):
    net = system("small_system")
    for key, value in changes.items():
        setattr(net, key, value)
    with pytest.raises(GivenError, match=words):
        Live(net)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("voice", {}),
        ("small_system", {}),
        ("small_system", {"enrols": True}),
        ("small_system", {"streams": "window"}),
    ],
)
def test_nothing_is_made_on_another_device(name, settings):
    """On torch's `meta`, where a tensor left behind on the CPU is an error as it is on a GPU."""
    net = live(system(name, **settings)).to("meta")
    state = [*speakers(net, 2), *zeros(net, 2)] if isinstance(net, Live) else []
    state = [tensor.to("meta") for tensor in state]
    samples, frames = net.system.frame_samples, torch.tensor([3, 2], device="meta")
    with torch.inference_mode():
        said = net(torch.zeros(2, 3 * samples, device="meta"), frames, *state)
    said = said if isinstance(said, tuple) else (said,)
    assert {tensor.device.type for tensor in said} == {"meta"}


# --- pretrained encoders ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """`hub:` names of small random checkpoints."""
    pytest.importorskip("transformers", reason="needs the train extra")
    import checkpoints

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("encoders")
    made = {
        "wav2vec2": checkpoints.speech_encoder,
        "whisper": checkpoints.whisper_encoder,
        "text": checkpoints.text_encoder,
    }
    return {name: make(folder / name) for name, make in made.items()}


PUBLISHED = [
    ("biformer", {"width": 32, "layers": 1, "words_width": 16, "words_inner": 8, "steps": 7, "attention_heads": 2}),
    ("acmf_net", {"width": 32, "encoder_width": 16, "layers": 1, "attention_heads": 2, "feed_forward": 16}),
]


@pytest.mark.parametrize("speech", ["wav2vec2", "whisper"])
@pytest.mark.parametrize(("name", "settings"), PUBLISHED, ids=["biformer", "acmf_net"])
def test_what_runs_live_is_what_training_reads_from_its_cache(name, settings, speech, encoders, tmp_path):
    """The same answers about the same recordings, through the frames on disk and through the fronts."""
    net = system(name, speech=encoders[speech], **settings)
    played, frame = live(net), net.frame_samples
    frames = [-(-22_400 // frame) * n for n in (1, 2)]
    clips, sounds = [], [sound(1, n * frame, seed)[0] for seed, n in enumerate(frames)]
    for n, one in enumerate(sounds):
        soundfile.write(tmp_path / f"{n}.wav", one.numpy(), 16_000, subtype="FLOAT")
        clips.append(Clip(tmp_path / f"{n}.wav", "made", "", "", "anger"))
    kept = by_front(net.fronts, clips, Take(), FeatureCache(tmp_path / "cache", "float32"), lambda _: None)
    ratios = {each: frame // samples_of(each) for each in net.fronts}
    take = TakeFeatures.of(kept, ratios)
    for n, one in enumerate(sounds):
        with torch.no_grad():
            given = played.hear(one[None], torch.tensor([frames[n]]))
            offline = {
                each: Sequences(pad([kept[each].clip(n)[: int(take.lengths[n]) * ratio]]), given[each].length_B)
                for each, ratio in ratios.items()
            }
            for each, (x_BTF, length_B) in offline.items():
                assert length_B.tolist() == [x_BTF.shape[1]] == [int(take.lengths[n]) * ratios[each]]
                torch.testing.assert_close(given[each].x_BTD[:, : x_BTF.shape[1]], x_BTF, atol=1e-5, rtol=0)
            batch = Batch(offline, length_B, torch.empty(0), torch.empty(0), None)
            expected = answer(net, batch, torch.zeros(1, 1, dtype=torch.long))
        torch.testing.assert_close(played.answer(given), expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("speech", ["wav2vec2", "whisper"])
@torch.no_grad()
def test_a_pretrained_encoder_heeds_no_company_and_too_short_a_sound_is_none(speech, encoders):
    net = live(system("biformer", speech=encoders[speech], **PUBLISHED[0][1]))
    pcm_BS, real_B = sound(3, 40 * 640), torch.tensor([40, 1, 23])
    together = net(pcm_BS, real_B)
    assert together.shape == (3, 1, len(HEADS))
    assert together.isfinite().all()
    for row, count in enumerate(real_B.tolist()):
        alone = net(pcm_BS[row : row + 1, : count * 640], torch.tensor([count]))
        assert (together[row] - alone[0]).abs().max() < CLOSE


def test_an_encoder_that_is_not_here_says_how_to_get_it(encoders):
    net = system("biformer", speech="hub:some/encoder", speech_width=16, **PUBLISHED[0][1])
    with pytest.raises(MissingError, match="`clser-models pull some/encoder`"):
        live(net)
    net = system("biformer", words="hub:some/reader", **PUBLISHED[0][1])
    with pytest.raises(MissingError, match="`clser-models pull some/reader`"):
        live(net)


def test_what_hears_its_future_does_not_stream_by_frames_and_is_not_exported(encoders, tmp_path):
    net = system("small_system")
    net.fronts = (encoders["wav2vec2"],)
    with pytest.raises(GivenError, match="hears its future"):
        Live(net)
    net = system("biformer", speech=encoders["wav2vec2"], **PUBLISHED[0][1])
    about = Trained("biformer", {}, HEADS)
    with pytest.raises(GivenError, match=r"not exported with it; .*model\.backend=torch"):
        export(net, tmp_path / "model.onnx", about)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_in_half_its_weights_are_half_and_its_frames_full_and_near(encoders):
    for speech, near in (("wav2vec2", 0.5), ("whisper", 0.05)):  # 16 numbers a step say little of what 768 lose: 0.01
        full, half = Pretrained(encoders[speech]), Pretrained(encoders[speech])
        half.shorten(torch.bfloat16)
        pcm_BS, frames_B = sound(1, 16_000), torch.tensor([50])
        one, other = full(pcm_BS, frames_B), half(pcm_BS, frames_B)
        assert other.x_BTD.dtype == torch.float32
        assert 0 < (one.x_BTD - other.x_BTD).norm() < near * one.x_BTD.norm()


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hashed", "pairs", "text"])
@torch.no_grad()
def test_texts_become_what_training_gives(kind, encoders):
    kind = encoders.get(kind, kind)
    said = ["the cat sat", "", "oh no", "...", "why"]
    given = Texts(kind)(said)
    assert [length > 0 for length in given.length_B.tolist()] == [True, False, True, False, True]
    for row, text in enumerate(said):
        if length := int(given.length_B[row]):
            ids, many = tokeniser_of(kind)([text])
            assert int(many[0]) == length
            wide = ids.shape[2:]
            got = given.x_BTD[row, :length, : wide[0]]
            torch.testing.assert_close(got, ids[0, :length], atol=1e-5, rtol=0)
    nothing = Texts(kind)(["", ""])
    assert nothing.length_B.tolist() == [0, 0]
    assert nothing.x_BTD.shape == (2, *no_words(kind).shape[1:])


@pytest.mark.parametrize("words", ["hashed", "text"])
@torch.no_grad()
def test_hearing_and_reading_in_two_steps_is_what_the_system_says_in_one(words, encoders):
    settings = {**PUBLISHED[0][1], "words": encoders.get(words, words)}
    net = live(system("biformer", **settings))
    pcm_BS, real_B = sound(2, 30 * 640), torch.tensor([30, 12])
    given = net.hear(pcm_BS, real_B)
    text = Texts(settings["words"])(["the cat sat on a mat", "oh no"])
    joined = net.answer({**given, WORDS: text})
    expected, _ = net.system({**given, WORDS: text}, ())
    assert torch.equal(joined, expected)
    assert torch.equal(net.answer(given), net(pcm_BS, real_B)), "without them, what it says of the sound"
    assert (joined - net.answer(given)).abs().max() > 0.01
    silent = net.answer({**net.fronts.silence(2, torch.device("cpu")), WORDS: text})
    assert silent.isfinite().all()
    assert (silent - joined).abs().max() > 0.01
