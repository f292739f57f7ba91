"""What tests of systems do alike: a batch learnt by heart, a watcher that keeps what it is told, and bimodal batches."""

import numpy as np
import torch

from clser.models.encoders.text import tokenise
from clser.models.systems import WORDS
from clser.models.tensors import Sequences, leaves, like, names

TEXTS = ["so glad to see you", "", "那太好了", "no", "I did not want to go there, not at all, and you know it"]


class Quiet:
    """Keeps the lines."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)

    def step(self, done, total, what):
        pass


def learns(net, loss_of_it, rate, steps=60, enough=0.1):
    """That a batch is learnt by heart in so many steps, and that no parameter that learns is left out at any of them."""
    trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    optimiser = torch.optim.Adam([p for _, p in trained], rate)
    for _ in range(steps):
        loss = loss_of_it()
        optimiser.zero_grad()
        loss.backward()
        assert [name for name, p in trained if p.grad is None] == []
        optimiser.step()
        if loss < enough / 2:
            break
    assert loss < enough


def names_the(net, made, target_B, at_BK=None):
    """The loss that `learns` asks for: cross-entropy of a system's answers."""

    def loss():
        logits_BKH, _ = net(made, net.start(len(target_B)), at_BK)
        return torch.nn.functional.cross_entropy(logits_BKH[:, 0], target_B)

    return loss


def voice_and_words(lengths, texts):
    """A batch of both; padding is loud, and must not be heard."""
    steps, length = max(lengths), torch.tensor(lengths)
    logmel, prosody = torch.randn(len(lengths), steps, 240), torch.randn(len(lengths), 4 * steps, 9)
    for row, count in enumerate(lengths):
        logmel[row, count:], prosody[row, 4 * count :] = 7.0, 7.0
    return {"logmel": Sequences(logmel, length), "prosody": Sequences(prosody, 4 * length), WORDS: tokenise(texts)}


def row_alone(made, texts, row):
    """One row of such a batch, without company."""
    n = int(made["logmel"].length_B[row])
    voice = {
        name: Sequences(made[name].x_BTD[row : row + 1, : n * each], made[name].length_B[row : row + 1])
        for name, each in (("logmel", 1), ("prosody", 4))
    }
    return {**voice, WORDS: tokenise([texts[row]])}


class Flat(torch.nn.Module):
    """A bimodal system as an engine holds it: frames, words, lengths, and the state as plain tensors."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, frames_B, logmel, prosody, words_B, words, *flat):
        made = {"logmel": Sequences(logmel, frames_B), "prosody": Sequences(prosody, 4 * frames_B)}
        if self.net.words:
            made[WORDS] = Sequences(words, words_B)
        logits, state = self.net(made, like(self.net.start(1), iter(flat)))
        return (logits, *leaves(state))


def exports_alike(net, exported):
    """That a bimodal system's graph, traced with two rows, answers as it does for any rows, frames and words."""
    state = net.start(2)
    labels = [f"state_{name}" for name in names(state)]
    inputs = ["frames", "logmel", "prosody", "words_count", "words", *labels]
    outputs = ["logits", *(f"next_{name}" for name in labels)]
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    axes["logmel"][1], axes["prosody"][1], axes["logits"][1], axes["words"] = "T", "J", "A", {0: "B", 1: "L", 2: "G"}

    def fed(lengths, texts, before):
        made = voice_and_words(lengths, texts)
        ids, words_B = made[WORDS]
        tensors = (torch.tensor(lengths), made["logmel"].x_BTD, made["prosody"].x_BTD, words_B, ids, *leaves(before))
        return made, tensors

    play, state = exported(Flat(net), fed([5, 3], TEXTS[:2], state)[1], inputs, outputs, axes), net.start(3)
    for lengths, texts in (([8, 0, 3], TEXTS[2:]), ([1, 1, 0], ["", "a", ""])):
        made, tensors = fed(lengths, texts, state)
        said, *after = play(tensors)
        with torch.no_grad():
            expected, state = net(made, state)
        for row, n in enumerate(lengths):
            upto = n if net.streams == "exactly" else 1
            np.testing.assert_allclose(said[row, :upto], expected[row, :upto].numpy(), atol=1e-4)
        for got, leaf in zip(after, leaves(state), strict=True):
            np.testing.assert_allclose(got, leaf.numpy(), atol=1e-4)
