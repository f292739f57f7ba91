"""xLSTM against its equations written out step by step in double precision."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")

from clser.models.layers import xlstm
from clser.models.layers.xlstm import CHUNK, Heads, MatrixMemory, MlstmBlock, SlstmBlock, XLstm, matrix_memory

pytestmark = pytest.mark.torch
CLOSE = 1e-5


def plain_matrix_memory(query, key, value, log_in, log_keep):
    """Eq. 19 to 21 of one head, without a stabiliser: only doubles bear that."""
    memory, normal, answers = torch.zeros(value.shape[1], key.shape[1]).double(), torch.zeros(key.shape[1]).double(), []
    for t in range(len(query)):
        memory = log_keep[t].exp() * memory + log_in[t].exp() * torch.outer(value[t], key[t])
        normal = log_keep[t].exp() * normal + log_in[t].exp() * key[t]
        answers.append(memory @ query[t] / max(abs(normal @ query[t]), 1.0))
    return torch.stack(answers), memory, normal


@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (8.0, 4.0), (-8.0, 4.0)])
def test_chunks_give_what_steps_do(offset, spread):
    steps = 2 * CHUNK + 9
    query, key, value = (torch.randn(1, 2, steps, 4) for _ in range(3))
    log_in = offset + spread * torch.randn(1, 2, steps)
    log_keep = torch.nn.functional.logsigmoid(2.0 + spread * torch.randn(1, 2, steps))
    start = MatrixMemory(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4), torch.zeros(1, 2))
    got, after = matrix_memory(Heads(query, key, value), log_in, log_keep, start)
    for head in range(2):
        given = [part[0, head].double() for part in (query, key, value, log_in, log_keep)]
        answers, memory, normal = plain_matrix_memory(*given)
        # A sum of n q near nothing magnifies the rounding of what it divides; relative to the answers' size it is small.
        assert ((got[0, head] - answers).abs() / (1.0 + answers.abs())).max() < CLOSE
        scale = after.top_BH[0, head].double().exp()
        assert torch.allclose(
            after.memory_BHEE[0, head].double() * scale, memory, rtol=1e-4, atol=CLOSE * memory.abs().max()
        )
        assert torch.allclose(
            after.normal_BHE[0, head].double() * scale, normal, rtol=1e-4, atol=CLOSE * normal.abs().max()
        )


def test_one_chunk_gives_what_many_do(monkeypatch):
    x, net = torch.randn(2, 50, 8), XLstm(8, ("m",), heads=2).eval()
    with torch.no_grad():
        one, _ = net(x, torch.tensor([50, 50]), net.start(2))
        monkeypatch.setattr(xlstm, "CHUNK", 7)
        many, _ = net(x, torch.tensor([50, 50]), net.start(2))
    assert (one - many).abs().max() < CLOSE


def plain_scalar_memory(gates_T4D, recurrent_HEF):
    """Eq. 8 to 14 without a stabiliser; the gates' order is input, forget, value, output."""
    heads, size = recurrent_HEF.shape[:2]
    hidden = cell = normal = torch.zeros(heads, size).double()
    answers = []
    for gates_4D in gates_T4D:
        asked_HF = gates_4D.reshape(4, heads, size).transpose(0, 1).reshape(heads, 4 * size)
        asked_HF = asked_HF + (hidden[:, None] @ recurrent_HEF)[:, 0]
        log_in, forget, value, out = asked_HF.chunk(4, 1)
        cell = torch.sigmoid(forget) * cell + torch.exp(log_in) * torch.tanh(value)
        normal = torch.sigmoid(forget) * normal + torch.exp(log_in)
        hidden = torch.sigmoid(out) * cell / normal
        answers.append(hidden.flatten())
    return torch.stack(answers)


def test_an_s_layer_follows_its_equations():
    block = SlstmBlock(8, 2).eval()
    with torch.no_grad():
        block.recurrent_HEF.normal_()
        block.shrink.weight.zero_()
        block.shrink.bias.zero_()
        x = 2.0 * torch.randn(1, 40, 8)
        got, _ = block(x, torch.tensor([40]), block.start(1))
        entry = block.norm(x)
        conv = torch.nn.functional.silu(block.conv(entry, torch.tensor([40]), block.start(1).conv_BKD)[0])
        asked = [*(gate(conv) for gate in block.gates_in), *(gate(entry) for gate in block.values_in)]
        gates = (torch.stack(asked, 2) + block.bias_4D)[0].double()
        hidden = plain_scalar_memory(gates, block.recurrent_HEF.double())
        expected = x[0] + block.head_norm(hidden.float().reshape(1, 40, 2, 4))[0]
    assert (got[0] - expected).abs().max() < 1e-4  # the head norm magnifies what is nearly constant


@pytest.mark.parametrize("extreme", [-300.0, -90.0, 90.0, 300.0])
@pytest.mark.parametrize("kind", ["s", "m"])
def test_gates_of_any_size_give_numbers_and_gradients(kind, extreme):
    net = XLstm(8, (kind,), heads=2)
    block = net.blocks[0]
    with torch.no_grad():
        if kind == "s":
            block.bias_4D[0] = extreme
        else:
            block.gates.bias[:2] = extreme
    x = torch.randn(2, 30, 8, requires_grad=True)
    y, state = net(x, torch.tensor([30, 12]), net.start(2))
    y, _ = net(x, torch.tensor([3, 30]), state)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", ["s", "m"])
def test_thousands_of_steps_stay_in_range(kind):
    """The stabiliser may drift for as long as the gates lean one way; nothing grows with it."""
    net = XLstm(8, (kind,), heads=2).eval()
    state = net.start(1)
    with torch.no_grad():
        for _ in range(10):
            y, state = net(torch.randn(1, 200, 8), torch.tensor([200]), state)
    assert y.isfinite().all()
    assert all(part.abs().max() < 1e3 for part in state[0])


def test_the_first_answer_does_not_depend_on_how_wide_the_input_gate_is():
    """h = o c / n: at the first step the gate stands above and below."""
    block, x = SlstmBlock(8, 2).eval(), torch.randn(1, 1, 8)
    answers = []
    with torch.no_grad():
        for bias in (-200.0, 0.0, 200.0):
            block.bias_4D[0] = bias
            answers.append(block(x, torch.tensor([1]), block.start(1))[0])
    assert torch.allclose(answers[0], answers[1], atol=CLOSE)
    assert torch.allclose(answers[2], answers[1], atol=CLOSE)


def test_heads_of_an_s_layer_do_not_hear_one_another():
    block = SlstmBlock(8, 2)
    hidden = torch.zeros(2, 1, 4, requires_grad=True)
    gates = torch.zeros(2, 1, 16)
    with torch.no_grad():
        block.recurrent_HEF.normal_()
    state = xlstm.ScalarMemory(hidden, *(torch.ones(2, 1, 4) for _ in range(3)))
    after = xlstm._step(gates, torch.ones(1, 1, dtype=torch.bool), block.recurrent_HEF, state)
    after.hidden[0].sum().backward()
    assert hidden.grad[0].any()
    assert not hidden.grad[1].any()


def test_channels_that_no_block_divides_are_refused():
    with pytest.raises(AssertionError, match="heads"):
        MlstmBlock(7, 4)
    with pytest.raises(AssertionError, match="heads"):
        SlstmBlock(7, 4)


def test_a_pattern_is_learnt():
    """Which of two marks came first: only what is remembered tells, after a stretch of noise."""
    net, head = XLstm(16, ("s", "m"), heads=2), torch.nn.Linear(16, 2)
    x, true = 0.3 * torch.randn(32, 12, 16), torch.arange(32) % 2
    x[true == 0, 0, 0] += 3.0
    x[true == 1, 0, 1] += 3.0
    optimiser = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(40):
        y, _ = net(x, torch.full((32,), 12), net.start(32))
        loss = torch.nn.functional.cross_entropy(head(y[:, -1]), true)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1
