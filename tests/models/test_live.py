"""A system with its fronts before it: streamed equals whole, and what cannot run live is refused."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from clser.models import systems
from clser.models.errors import GivenError
from clser.models.export import HEARD_LOOSER
from clser.models.features.fronts import front
from clser.models.labels import HEADS
from clser.models.live import Fronts, Live, Windowed, card, live, windows
from clser.models.saved import Calibration, Trained
from clser.models.tensors import Sequences, leaves

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
        ({"fronts": ("hub:some/encoder",)}, r"does not run live; train it with .*speech: own"),
        ({"words": "hub:some/encoder"}, "does not run live"),
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
