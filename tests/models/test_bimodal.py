"""BiFormer's sisters and the encoders they share: the published counts, both modes, company, what is missing, graphs."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")

from trials import TEXTS, exports_alike, learns, names_the, row_alone, voice_and_words

from clser.models.encoders.bimodal import pooled
from clser.models.errors import GivenError
from clser.models.layers.graph import SLOPE, GraphAttention, PairGraph
from clser.models.systems import WORDS, build
from clser.models.tensors import Sequences, leaves

pytestmark = pytest.mark.torch

HEADS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SISTERS = ("bigraphformer", "bigatedgraphformer", "bimamba")
SYSTEMS = ("biformer", *SISTERS)
COUNTS = {"bigraphformer": 5_818_516, "bigatedgraphformer": 6_367_542, "bimamba": 4_889_607}
IDLE = {"bigraphformer": 75_614, "bigatedgraphformer": 141_918, "bimamba": 0}
"""Of these what the official code makes and never calls."""
MODES = ("paper", "as_released")
KINDS = ("lstm", "xlstm", "transformer")
SMALL = {
    "width": 16, "words_width": 16, "words_inner": 16, "attention_heads": 4, "layers": 2, "steps": 9, "hidden": 16,
    "graph_heads": 2, "gate_width": 12, "joined_width": 16, "joined_layers": 2, "joined_numbers": 4, "voice_hidden": 8,
    "words_hidden": 8, "buckets": 256, "numbers": 8,
}  # fmt: skip
QUIET = {"layers": 1, "drop": 0.0, "voice_drop": 0.0, "gram_drop": 0.0}
HUB = {"speech": "hub:some/voice", "speech_width": 1024, "words": "hub:some/words", "words_width": 1024}
LENGTHS = [7, 3, 1, 12, 5]


def small(system="bigraphformer", **changed):
    return build(system, {**SMALL, **changed}, HEADS).eval()


def count(module, which=lambda p: True):
    return sum(p.numel() for name, p in module.named_parameters() if "missing" not in name and which(p))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("system", SISTERS)
def test_the_papers_parameters(system, mode):
    """Of the fusion, behind the encoders, with features of 1024 numbers, 95 steps and seven classes."""
    net = build(system, {**HUB, "mode": mode}, HEADS)
    assert count(net.fusions[system]) == COUNTS[system]
    idle = IDLE[system] if mode == "as_released" else 0
    assert count(net.fusions[system], lambda p: not p.requires_grad) == idle


def test_the_encoders_of_tables_5_and_7():
    def of(part, **kind):
        return build("biformer", {**HUB, "part": part, **kind}, HEADS)

    assert [of("voice", voice_encoder=kind).voice_encoder.width for kind in KINDS] == [256, 128, 128]
    assert [of("words", words_encoder=kind).words_encoder.width for kind in KINDS] == [1024, 256, 256]
    # the paper does not tell these: ours, so that a change is seen
    assert [count(of("voice", voice_encoder=kind)) for kind in KINDS] == [1_578_759, 455_415, 528_647]
    assert [count(of("words", words_encoder=kind)) for kind in KINDS] == [12_606_471, 1_081_535, 2_633_479]
    blocks = of("voice", voice_encoder="xlstm").voice_encoder.layers.blocks
    assert [type(block).__name__[0] for block in blocks] == ["S", "M", "M"]


@pytest.mark.parametrize(("part", "mode"), [("both", "as_released"), ("wpf", "paper")])
@pytest.mark.parametrize("system", SISTERS)
def test_ragged_in_company_and_alone(system, part, mode):
    net = small(system, part=part, mode=mode)
    made = voice_and_words(LENGTHS * 13, TEXTS * 13)
    with torch.no_grad():
        many, _ = net(made, ())
        assert many.shape == (65, 1, 7) and many.isfinite().all()
        for row in range(5):
            one, _ = net(row_alone(made, TEXTS * 13, row), ())
            assert torch.allclose(one[0], many[row], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["voice", "words", "wpf"])
def test_every_encoder_ragged_in_company_and_alone(part, kind):
    net = small("biformer", part=part, voice_encoder=kind, words_encoder=kind)
    assert net.streams == {"voice": "exactly" if kind == "xlstm" else "window", "words": "end", "wpf": "window"}[part]
    made = voice_and_words(LENGTHS * 7, TEXTS * 7)
    with torch.no_grad():
        many, _ = net(made, net.start(35))
        assert many.isfinite().all()
        for row in range(5):
            one, _ = net(row_alone(made, TEXTS * 7, row), net.start(1))
            assert torch.allclose(one[0, -1], many[row, LENGTHS[row] - 1 if net.streams == "exactly" else 0], atol=1e-4)


@pytest.mark.parametrize("kinds", [("mamba", "mamba"), ("lstm", "xlstm"), ("transformer", "lstm")])
@pytest.mark.parametrize("system", SYSTEMS)
def test_rows_with_both_with_one_and_with_none_stand_in_one_batch(system, kinds):
    net = small(system, part="wpf", voice_encoder=kinds[0], words_encoder=kinds[1])
    texts = [TEXTS[0], "", TEXTS[0], ""]
    made = voice_and_words([6, 6, 6, 6], texts)
    for name in ("logmel", "prosody"):
        x, length = made[name]
        made[name] = Sequences(x, length * torch.tensor([1, 1, 0, 0]))
    with torch.no_grad():
        said, _ = net(made, ())
        assert said.isfinite().all()
        # words given as no batch at all, and a voice of which there is not even padding
        voice_only, _ = net({name: made[name] for name in ("logmel", "prosody")}, ())
        assert torch.allclose(voice_only[1], said[1], atol=1e-4)
        none = {name: Sequences(made[name].x_BTD[:, :0], made[name].length_B * 0) for name in ("logmel", "prosody")}
        words_only, _ = net({**none, WORDS: made[WORDS]}, ())
        assert torch.allclose(words_only[2:], said[2:], atol=1e-4)
    apart = [said[a] - said[b] for a, b in ((0, 1), (0, 2), (1, 2), (2, 3))]
    assert all(difference.abs().max() > 1e-5 for difference in apart)


def test_any_models_are_weighed_by_class():
    net = small("bimamba", part="wpf", wpf_of=("voice", "both", "bimamba", "bigraphformer", "biformer"))
    assert net.models == ("voice", "bimamba", "bigraphformer", "biformer")
    assert set(net.fusions) == {"bimamba", "bigraphformer", "biformer"} and net.weights.score_KC.shape == (4, 7)
    torch.nn.init.normal_(net.weights.score_KC)
    made = voice_and_words([4, 4], ["well", ""])
    with torch.no_grad():
        said, _ = net(made, ())
        each = torch.stack([one for one, _ in net._logits(made)])
        assert torch.allclose(said[0, 0], (net.weights.score_KC.softmax(0) * each[:, 0]).sum(0), atol=1e-5)
    two = small("biformer", part="wpf", wpf_of=("voice", "words"))
    assert not len(two.fusions) and two.weights.score_KC.shape == (2, 7)


def test_attention_in_a_graph_is_what_its_equations_say():
    layer = GraphAttention(6, 4, 3)
    torch.nn.init.normal_(layer.bias_D)
    x, joined = torch.randn(1, 3, 6), torch.zeros(1, 3, 3, dtype=torch.bool)
    joined[0, 0, 1] = joined[0, 1, 2] = True
    said = layer(x, joined)[0]
    for node, heard in enumerate(([0, 1], [1, 2], [2])):
        for head in range(3):
            h = (layer.enter.weight @ x[0].T).T[:, 4 * head : 4 * head + 4]
            score = torch.stack([layer.ask_HE[head] @ h[node] + layer.told_HE[head] @ h[other] for other in heard])
            share = torch.nn.functional.leaky_relu(score, SLOPE).softmax(0)
            expected = share @ h[heard] + layer.bias_D[4 * head : 4 * head + 4]
            assert torch.allclose(said[node, 4 * head : 4 * head + 4], expected, atol=1e-5)


def test_nodes_that_are_not_joined_hear_themselves_alone():
    graph = PairGraph(8, 2).eval()
    voice, words, other = torch.randn(3, 2, 8)
    joined = torch.tensor([True, False])
    one, two = graph(voice, words, joined), graph(voice, other, joined)
    assert (one[0, 0] - two[0, 0]).abs().max() > 1e-4
    assert torch.equal(one[1, 0], two[1, 0])


@pytest.mark.parametrize("system", SISTERS[:2])
def test_released_training_joins_the_first_row_of_each_batch_alone(system):
    texts = TEXTS[:1] * 3
    made = voice_and_words([6, 6, 6], texts)
    turned = {name: Sequences(x.flip(0), length.flip(0)) for name, (x, length) in made.items()}
    for mode, hangs in (("paper", False), ("as_released", True)):
        torch.manual_seed(3)
        net = small(system, **QUIET, mode=mode)
        assert torch.allclose(net(made, ())[0], net(turned, ())[0].flip(0), atol=1e-5)
        net.train()
        apart = (net(made, ())[0] - net(turned, ())[0].flip(0)).abs().amax((1, 2))
        assert [bool(row > 1e-5) for row in apart] == [hangs, False, hangs]


@pytest.mark.parametrize("system", SISTERS)
def test_the_two_modes_differ(system):
    made, said = voice_and_words([6, 4], ["so it is", "no"]), []
    for mode in MODES:
        torch.manual_seed(1)
        said.append(small(system, mode=mode)(made, ())[0])
    assert (said[0] - said[1]).abs().max() > 1e-4


TO_LEARN = [
    ("bigraphformer", "paper", {}),
    ("bigatedgraphformer", "paper", {}),
    ("bigatedgraphformer", "as_released", {}),
    ("bigraphformer", "as_released", {}),
    ("bimamba", "paper", {"part": "wpf"}),
    ("biformer", "paper", {"part": "wpf", "voice_encoder": "lstm", "words_encoder": "xlstm"}),
    ("biformer", "paper", {"part": "wpf", "voice_encoder": "transformer", "words_encoder": "lstm"}),
]


@pytest.mark.parametrize(("system", "mode", "changed"), TO_LEARN)
def test_it_learns_a_tiny_batch_and_every_parameter_is_reached(system, mode, changed):
    net = small(system, **QUIET, mode=mode, **changed).train()
    made, target = voice_and_words([5, 3, 4, 2], ["so glad", "how awful", "", "well now"]), torch.tensor([3, 1, 2, 0])
    for name in ("logmel", "prosody"):
        made[name] = Sequences(made[name].x_BTD, made[name].length_B * torch.tensor([1, 1, 1, 0]))
    learns(net, names_the(net, made, target), 1e-2)


def test_a_voice_alone_streams_where_its_encoder_does():
    net = small("biformer", part="voice", voice_encoder="xlstm")
    made = voice_and_words([12, 8], ["", ""])
    (logmel, length), prosody = made["logmel"], made["prosody"].x_BTD
    with torch.no_grad():
        whole, end = net(made, net.start(2))
        state, parts = net.start(2), []
        for first, last in ((0, 5), (5, 6), (6, 12)):
            left = (length - first).clamp(0, last - first)
            part = {
                "logmel": Sequences(logmel[:, first:last], left),
                "prosody": Sequences(prosody[:, 4 * first : 4 * last], 4 * left),
            }
            said, state = net(part, state)
            parts.append(said)
    together = torch.cat(parts, 1)
    assert torch.allclose(together[0], whole[0], atol=1e-4) and torch.allclose(together[1, :8], whole[1, :8], atol=1e-4)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(leaves(state), leaves(end), strict=True))


def test_pretrained_features_take_our_encoders_place():
    for system in SISTERS:
        net = small(system, **HUB | {"speech_width": 24, "words_width": 20})
        assert (net.fronts, net.words, net.streams) == (("hub:some/voice",), "hub:some/words", "window")
        made = {
            "hub:some/voice": Sequences(torch.randn(2, 20, 24), torch.tensor([20, 8])),
            WORDS: Sequences(torch.randn(2, 14, 20), torch.tensor([14, 0])),
        }
        assert net(made, ())[0].shape == (2, 1, 7)


def test_frames_are_pooled_from_each_rows_beginning():
    x = torch.randn(3, 7, 2)
    read = pooled(Sequences(x, torch.tensor([7, 4, 0])), 3)
    assert read.length_B.tolist() == [3, 2, 0]
    assert torch.allclose(read.x_BTD[0], torch.stack([x[0, :3].mean(0), x[0, 3:6].mean(0), x[0, 6]]), atol=1e-6)
    assert torch.allclose(read.x_BTD[1, :2], torch.stack([x[1, :3].mean(0), x[1, 3]]), atol=1e-6)
    assert pooled(read, 1) is read


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"speech": "theirs"}, "hub:NAME"),
        ({"part": "wpf", "wpf_of": []}, "wpf_of"),
        ({"part": "wpf", "wpf_of": ["them"]}, "bigraphformer"),
        ({"voice_encoder": "transformer", "voice_hidden": 10}, "multiple"),
        ({"words_encoder": "gru"}, "bigraphformer"),
        ({"attention_heads": 5}, "shared"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(GivenError, match=told):
        small(**settings)


TO_EXPORT = [
    ("bigatedgraphformer", {"voice_encoder": "lstm", "words_encoder": "transformer"}),
    ("bimamba", {"voice_encoder": "transformer", "words_encoder": "lstm"}),
    ("biformer", {"part": "voice", "voice_encoder": "xlstm"}),
]  # fmt: skip


@pytest.mark.parametrize(("system", "changed"), TO_EXPORT)
def test_it_exports_with_any_number_of_rows_frames_and_words(system, changed, exported):
    net = small(system, **changed)
    exports_alike(net, exported)
