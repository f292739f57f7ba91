"""Attention and transformers against torch's own and against plain loops; masks, lengths of zero, positions."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import math

import pytest

torch = pytest.importorskip("torch")

from clser.models.layers import transformer
from clser.models.layers.attention import AdditiveAttention, Attention, CrossAttention, LayerMix
from clser.models.layers.transformer import Transformer, sinusoids
from clser.models.tensors import Sequences

pytestmark = pytest.mark.torch
CLOSE = 1e-5


def everything(layer):
    """No weight where it began: zeros and ones hide mistakes."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def without_gradient(layer):
    """Names; a key's bias adds the same to all that a step compares, so that its own is zero but for rounding."""
    named = [(name, p) for name, p in layer.named_parameters() if not name.endswith("attention.key.bias")]
    return [name for name, p in named if p.grad is None or not p.grad.any()]


def as_torchs(attention, other):
    with torch.no_grad():
        parts = (attention.query, attention.key, attention.value)
        other.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        other.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        other.out_proj.weight.copy_(attention.out.weight)
        other.out_proj.bias.copy_(attention.out.bias)
    return other


def test_attention_is_torchs_own():
    ours = everything(Attention(12, 3))
    theirs = as_torchs(ours, torch.nn.MultiheadAttention(12, 3, batch_first=True))
    x, memory, allowed = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.rand(2, 5, 7) > 0.4
    allowed[..., 0] = True
    expected, _ = theirs(x, memory, memory, attn_mask=~allowed.repeat_interleave(3, 0), need_weights=False)
    assert torch.allclose(ours(x, memory, allowed), expected, atol=CLOSE)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(("norm", "activation"), [("pre", "gelu"), ("post", "relu")])
def test_a_layer_that_sees_all_is_torchs_own(norm, activation):
    ours = everything(Transformer(12, 1, 3, 20, norm=norm, activation=activation, positions=False).eval())
    layer = ours.layers[0]
    theirs = torch.nn.TransformerEncoderLayer(
        12, 3, 20, activation=activation, batch_first=True, norm_first=norm == "pre"
    ).eval()
    as_torchs(layer.attention, theirs.self_attn)
    pairs = ((layer.feed_forward.grow, theirs.linear1), (layer.feed_forward.shrink, theirs.linear2))
    for mine, other in (*pairs, (layer.attention_norm, theirs.norm1), (layer.feed_norm, theirs.norm2)):
        other.load_state_dict(mine.state_dict())
    x, length = torch.randn(3, 6, 12), torch.tensor([6, 4, 1])
    padding = torch.arange(6) >= length[:, None]
    got, state = ours(x, length, ours.start(3))
    expected = ours.last_norm(theirs(x, src_key_padding_mask=padding))
    assert torch.allclose(got[~padding], expected[~padding], atol=CLOSE)
    assert not got[padding].any()
    assert (ours.streams, state) == ("end", ())


def test_rows_that_see_all_keep_to_themselves_and_none_is_no_number():
    net = everything(Transformer(8, 2, 2, 16).eval())
    x, length = torch.randn(3, 6, 8), torch.tensor([6, 3, 0])
    y, _ = net(x, length)
    for row, steps in ((0, 6), (1, 3)):
        assert torch.allclose(
            y[row : row + 1, :steps], net(x[row : row + 1, :steps], torch.tensor([steps]))[0], atol=CLOSE
        )
    assert not y[2].any()
    net.train()
    y, _ = net(x, length)
    y.square().mul(torch.rand_like(y)).sum().backward()
    assert without_gradient(net) == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_the_causal_form_sees_itself_and_its_reach():
    """One layer: a step's answer moves with the `reach` steps before it and with no other."""
    net = everything(Transformer(8, 1, 2, 16, mode="causal", reach=3).eval())
    x = torch.randn(1, 10, 8, requires_grad=True)
    y, _ = net(x, torch.tensor([10]), net.start(1))
    for step in range(10):
        (gradient,) = torch.autograd.grad(y[0, step].sum() + y[0, step, 0], x, retain_graph=True)
        heard = gradient[0].abs().amax(1).nonzero()[:, 0].tolist()
        assert heard == list(range(max(0, step - 3), step + 1))


def test_blocks_change_no_number(monkeypatch):
    net = everything(Transformer(8, 2, 2, 16, mode="causal", reach=5).eval())
    x, length = torch.randn(2, 23, 8), torch.tensor([23, 11])
    one, after = net(x, length, net.start(2))
    monkeypatch.setattr(transformer, "BLOCK", 4)
    many, other = net(x, length, net.start(2))
    assert torch.allclose(one, many, atol=CLOSE)
    assert all(torch.allclose(a, b, atol=CLOSE) for a, b in zip(after, other, strict=True))


def test_positions_are_the_papers_and_know_no_last_step():
    places = sinusoids(torch.tensor([[0.0, 7.0, 90_000.0]]), 6)[0].double()
    for row, step in enumerate((0, 7, 90_000)):
        for channel in range(6):
            angle = step / 10_000 ** (2 * (channel // 2) / 6)
            wave = math.cos(angle) if channel % 2 else math.sin(angle)
            assert places[row, channel].item() == pytest.approx(wave, abs=2e-6 + 2e-7 * step)
    assert sinusoids(torch.zeros(1, 2), 5).shape == (1, 2, 5)


def test_positions_go_on_where_the_last_chunk_ended():
    net = everything(Transformer(8, 1, 2, 16, mode="causal", reach=2).eval())
    x = torch.randn(1, 1, 8)
    first, state = net(x, torch.tensor([1]), net.start(1))
    assert state.seen_B1.item() == 1.0
    second, _ = net(x, torch.tensor([1]), net.start(1)._replace(seen_B1=torch.tensor([[5.0]])))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_cross_attention_asks_only_what_is_there(norm):
    layer = everything(CrossAttention(8, 2, 16, norm=norm, memory_width=6).eval())
    queries = Sequences(torch.randn(3, 4, 8), torch.tensor([4, 2, 3]))
    memory = Sequences(torch.randn(3, 5, 6), torch.tensor([5, 2, 0]))
    y, length = layer(queries, memory)
    assert torch.equal(length, queries.length_B)
    worse = memory._replace(x_BTD=memory.x_BTD.clone())
    worse.x_BTD[1, 2:] = 1e9
    worse.x_BTD[2] = 1e9
    assert torch.equal(layer(queries, worse).x_BTD, y)
    alone = layer(
        Sequences(queries.x_BTD[1:2, :2], queries.length_B[1:2]), Sequences(memory.x_BTD[1:2, :2], torch.tensor([2]))
    )
    assert torch.allclose(y[1:2, :2], alone.x_BTD, atol=CLOSE)
    assert torch.equal(y[2, :3], queries.x_BTD[2, :3])
    assert not y[1, 2:].any()
    assert not y[2, 3:].any()


def test_cross_attention_by_its_parts():
    layer = everything(CrossAttention(8, 2, 16).eval())
    queries, memory = torch.randn(1, 4, 8), torch.randn(1, 5, 8)
    everywhere = torch.ones(1, 1, 5, dtype=torch.bool)
    heard = layer.attention_norm(queries + layer.attention(queries, memory, everywhere))
    expected = layer.feed_norm(heard + layer.feed_forward(heard))
    got = layer(Sequences(queries, torch.tensor([4])), Sequences(memory, torch.tensor([5])))
    assert torch.allclose(got.x_BTD, expected, atol=CLOSE)
    got.x_BTD.square().mul(torch.rand(1, 4, 8)).sum().backward()
    assert without_gradient(layer) == []


def test_memory_of_no_step_at_all_has_harmless_gradients():
    layer = CrossAttention(8, 2, 16)
    x = torch.randn(1, 4, 8, requires_grad=True)
    layer(Sequences(x, torch.tensor([4])), Sequences(torch.randn(1, 3, 8), torch.tensor([0]))).x_BTD.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())


def test_layers_mix_from_their_mean_on():
    mix, layers = LayerMix(3), [torch.randn(2, 4, 5) for _ in range(3)]
    assert torch.allclose(mix(layers), sum(layers) / 3, atol=CLOSE)
    with torch.no_grad():
        mix.score_K.copy_(torch.tensor([0.0, 1.0, 2.0]))
    expected = sum(w * x for w, x in zip(mix.score_K.softmax(0), layers, strict=True))
    assert torch.allclose(mix(torch.stack(layers)), expected, atol=CLOSE)
    mix(layers).square().sum().backward()
    assert mix.score_K.grad.all()


@pytest.mark.parametrize("query_width", [None, 3])
def test_additive_attention_by_hand(query_width):
    layer, x = AdditiveAttention(4, 6, query_width), torch.randn(3, 5, 4)
    query = None if query_width is None else torch.randn(3, query_width)
    length = torch.tensor([5, 2, 0])
    got = layer(x, length, query)
    for row, steps in ((0, 5), (1, 2)):
        hidden = layer.key(x[row, :steps])
        if query is not None:
            hidden = hidden + layer.query(query[row])
        weight = layer.score(torch.tanh(hidden))[:, 0].softmax(0)
        assert torch.allclose(got[row], weight @ x[row, :steps], atol=CLOSE)
    assert not got[2].any()
    got.square().sum().backward()
    assert without_gradient(layer) == []
    assert all(p.grad.isfinite().all() for p in layer.parameters())
