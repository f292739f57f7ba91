"""The default voice system and the manner it goes by: streaming, causal, and better acquainted with whom it has heard."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models.features import manner
from clser.models.features.fronts import front
from clser.models.features.prosody import FIELDS
from clser.models.labels import HEADS, NONE
from clser.models.systems import build
from clser.models.tensors import Sequences, leaves

pytestmark = pytest.mark.torch
FRONTS = ("logmel", "prosody")
PIECES = {"logmel": 2, "prosody": 8}


def system(seed=0):
    torch.manual_seed(seed)
    net = build("voice", {"width": 32, "hidden": 16, "manner": 16}, (*HEADS, NONE)).eval()
    net.fit_inputs(frames(16, 25, 100))
    return net


def frames(rows, count, seed=0):
    """What the fronts might say of speech."""
    torch.manual_seed(seed)
    logmel = torch.randn(rows, 2 * count, front("logmel").width) - 4.0
    prosody = torch.randn(rows, 8 * count, front("prosody").width)
    return of(logmel, prosody, torch.full((rows,), count))


def of(logmel, prosody, length):
    return {"logmel": Sequences(logmel, 2 * length), "prosody": Sequences(prosody, 8 * length)}


def cut(sound, begin, end, length=None):
    logmel, prosody = (sound[name].x_BTD[:, PIECES[name] * begin : PIECES[name] * end] for name in FRONTS)
    return of(logmel, prosody, torch.full((len(logmel),), end - begin) if length is None else length)


def worst(a, b):
    """The largest difference, against the size of what differs."""
    return max(float(((x - y).abs() / (1.0 + x.abs())).max()) for x, y in zip(leaves(a), leaves(b), strict=True))


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 30), max_size=4))
def test_streamed_equals_whole(cuts):
    net, sound = system(), frames(2, 30)
    with torch.no_grad():
        whole, end = net.hear(sound, net.start(2))
        state, parts, begin = net.start(2), [], 0
        for stop in [*sorted(cuts), 30]:
            if stop > begin:
                part, state = net.hear(cut(sound, begin, stop), state)
                parts.append(part)
            begin = stop
    assert worst(torch.cat(parts, 1), whole) < 1e-4
    assert worst(state, end) < 1e-4


def test_company_and_padding_change_nothing():
    net, sound, lengths = system(), frames(4, 20, 1), torch.tensor([20, 7, 0, 1])
    with torch.no_grad():
        together, after = net.hear(cut(sound, 0, 20, lengths), net.start(4))
        for row, length in enumerate(lengths.tolist()):
            if length == 0:
                left = net.start(1)
            else:
                mine = {name: Sequences(part.x_BTD[row : row + 1], part.length_B[:1]) for name, part in sound.items()}
                alone, left = net.hear(cut(mine, 0, length), net.start(1))
                assert worst(together[row : row + 1, :length], alone) < 1e-4
            assert worst(tuple(leaf[row : row + 1] for leaf in leaves(after)), tuple(leaves(left))) < 1e-4


def test_it_does_not_hear_what_is_to_come():
    net, sound = system(), frames(1, 20, 2)
    with torch.no_grad():
        plain, _ = net(sound, net.start(1))
        sound["logmel"].x_BTD[:, 24:] += 1.0
        changed, _ = net(sound, net.start(1))
    assert torch.allclose(changed[:, :12], plain[:, :12], atol=1e-4)
    assert not torch.allclose(changed[:, 12:], plain[:, 12:], atol=1e-3)


def test_asked_frames_are_those_of_all_frames():
    net, sound, asked = system(), frames(3, 15, 3), torch.tensor([[0, 14], [3, 4], [7, 7]])
    with torch.no_grad():
        every, _ = net.hear(sound, net.start(3))
        some, _ = net.hear(sound, net.start(3), asked)
    assert torch.allclose(some, every[torch.arange(3)[:, None], asked], atol=1e-5)


def last(lengths):
    return (torch.as_tensor(lengths) - 1)[:, None]


def test_gradients_reach_every_parameter():
    net = system()
    e_BKY, _ = net.hear(frames(3, 15, 5), net.start(3))
    net.answer(e_BKY, net.tell(frames(3, 20, 4), last([20] * 3))[:, 0]).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_while_training_the_body_answers_alone():
    net, sound = system().train(), frames(3, 15, 5)
    logits, _ = net(sound, net.start(3))
    logits.square().sum().backward()
    assert all(p.grad is None for p in net.members.parameters())
    assert all(p.grad is not None for p in net.body.parameters())


def test_a_tiny_batch_is_learnt():
    net, sound, wanted = system(), frames(6, 15, 6), torch.arange(6)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(80):
        logits, _ = net(sound, net.start(6), torch.full((6, 1), 14))
        loss = torch.nn.functional.cross_entropy(logits[:, 0], wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1


def test_what_is_told_of_a_speaker_is_what_was_heard():
    net, lengths = system(), torch.tensor([20, 9, 1])
    sound = cut(frames(3, 20, 7), 0, 20, lengths)
    with torch.no_grad():
        e_BTY, _ = net.hear(sound, net.start(3))
    told = net.tell(sound, torch.cat((last(lengths), torch.zeros(3, 1, dtype=torch.long)), 1))
    assert told.shape == (3, 2, net.speaker_numbers)
    assert torch.equal(told[..., 0], torch.ones(3, 2))
    heard = e_BTY[..., : net.speaker_numbers]
    assert torch.allclose(told[:, 0], heard[torch.arange(3), lengths - 1], atol=1e-5)
    assert torch.allclose(told[:, 1], heard[:, 0], atol=1e-5)


def test_a_speaker_changes_the_answer_and_nobody_does_not():
    net, sound = system(), frames(1, 10, 8)
    with torch.no_grad():
        stranger, _ = net(sound, net.start(1))
        e_BTY, _ = net.hear(sound, net.start(1))
        friend = net.answer(e_BTY, net.tell(frames(3, 20, 9), last([20] * 3))[:, 0].sum(0, keepdim=True))
        nobody = net.answer(e_BTY, torch.zeros(1, net.speaker_numbers))
    assert torch.equal(stranger, nobody)
    assert not torch.allclose(stranger, friend, atol=1e-3)


def manner_of(bands, prosody, fitted=True):
    net = manner.Manner(8)
    if fitted:
        net.fit(net.columns(bands, prosody).flatten(0, 1))
    real = torch.ones(bands.shape[:2], dtype=torch.bool)
    numbers, _ = net(bands, prosody, real, net.start(len(bands)))
    return net, numbers[0, -1]


def test_the_manner_of_a_track_worked_by_hand():
    """A pitch that rises steadily, loud enough that every hop counts alike."""
    hops = 80
    bands = torch.zeros(1, hops, manner.BANDS) + torch.linspace(0.0, 1.0, manner.BANDS)
    prosody = torch.zeros(1, hops, len(FIELDS))
    prosody[0, :, FIELDS.index("log_f0")] = torch.arange(hops) * 0.01
    prosody[0, :, manner.VOICING] = 1.0
    net, numbers = manner_of(bands, prosody, fitted=False)
    column = net.prosody.start + FIELDS.index("log_f0")
    mean, log_deviation, slope, *steps = numbers[: manner.COLUMNS * 6].reshape(6, manner.COLUMNS)[:, column].tolist()
    deviation = float(prosody[0, :, 0].std(correction=0).square().add(manner.SMALLEST_VARIANCE).sqrt())
    assert mean == pytest.approx(0.395, abs=1e-3)
    assert log_deviation == pytest.approx(torch.tensor(deviation).log().item(), abs=1e-2)
    assert slope == pytest.approx(1.0, abs=0.05)  # 0.01 a hop of 10 ms
    for lag, step in zip(manner.LAGS, steps, strict=True):
        assert step == pytest.approx(0.01 * lag / deviation, rel=0.02)
    assert numbers[-1].item() == pytest.approx(1.0)  # voiced throughout
    assert numbers[-3].item() == pytest.approx(torch.tensor(0.8).log().item(), abs=1e-5)


def test_silence_about_speech_counts_for_little():
    torch.manual_seed(0)
    speech, prosody = torch.randn(1, 160, manner.BANDS) - 2.0, torch.randn(1, 160, len(FIELDS))
    hush, nothing = torch.full((1, 80, manner.BANDS), -16.0), torch.zeros(1, 80, len(FIELDS))
    net, alone = manner_of(speech, prosody)
    both = torch.cat((speech, hush), 1), torch.cat((prosody, nothing), 1)
    numbers, _ = net(*both, torch.ones(1, 240, dtype=torch.bool), net.start(1))
    kept = manner.COLUMNS * 8 + 2 * manner.VOICED
    assert (numbers[0, -1, : manner.COLUMNS] - alone[: manner.COLUMNS]).abs().max() < 0.05
    assert (numbers[0, -1, :kept] - alone[:kept]).abs().median() < 0.02


def test_what_is_usual_is_that_of_speech_alone():
    net, sound = system(), frames(8, 30, 9)
    sound["logmel"].x_BTD[:, 30:] = -16.0  # silence, half of the time
    net.fit_inputs(sound)
    assert abs(float(net.manner.mean_C[: manner.BANDS].mean()) + 4.0) < 0.1


def test_it_can_be_given_to_a_stream_of_any_rows():
    """Live rows end anywhere: none of zero frames may change what is carried."""
    net = system()
    state = net.start(2)
    with torch.no_grad():
        _, first = net.hear(cut(frames(2, 5, 3), 0, 5, torch.tensor([5, 0])), state)
    untouched = [leaf[1] for leaf in leaves(first)]
    assert all(torch.equal(leaf, before[1]) for leaf, before in zip(untouched, leaves(state), strict=True))
