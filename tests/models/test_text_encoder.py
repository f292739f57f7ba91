"""Words by their letters: the same numbers everywhere, any script, and an encoder to which words may be added."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models.encoders.text import HashedWords, TextEncoder, tokenise, tokeniser
from clser.models.encoders.words import HASHES, MOST_GRAMS, MOST_WORDS, grams, hashed, words
from clser.models.errors import GivenError
from clser.models.systems import WORDS
from clser.models.tensors import Sequences, leaves, like
from clser.models.zoo import words_mamba

pytestmark = pytest.mark.torch

TEXTS = ["Don't worry, I'm HAPPY!", "", "今天很高兴", "ich bin so traurig", "मैं खुश हूँ"]
SMALL = {"width": 32, "layers": 2, "buckets": 512, "numbers": 16}


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Don’t worry, I'm HAPPY!!", ["don't", "worry", "i'm", "happy", "!", "!"]),
        ("今天 I love 東京", ["今", "天", "i", "love", "東", "京"]),
        ("मैं खुश हूँ", ["मैं", "खुश", "हूँ"]),
        ("straße ＡＢＣ STRASSE", ["strasse", "abc", "strasse"]),
        ("well-known 'quoted' (so)", ["well", "known", "quoted", "so"]),
        ("so 😀\ufe0f…", ["so", "😀"]),
        (" \n\t... ", []),
        ("a\ud800b", ["a", "b"]),
    ],
)
def test_words_of_any_script(text, cut):
    assert [word for word, _ in words(text)] == cut


def test_grams_have_the_words_bounds_and_characters_reach_back():
    assert list(grams("cat")) == ["<cat>", "<ca", "cat", "at>", "<cat", "cat>"]
    assert list(grams("a")) == ["<a>"]
    assert [list(grams(*word)) for word in words("很高兴")] == [["<很>"], ["<高>", "很高"], ["<兴>", "高兴", "很高兴"]]


def test_a_form_never_seen_shares_most_numbers_with_those_that_were():
    ids, _ = hashed(["worried worries"])
    one, two = (set(row.tolist()) - {0} for row in ids[0])
    assert len(one & two) >= 8


def test_the_same_numbers_in_another_process():
    code = f"from clser.models.encoders.words import hashed; print(hashed({TEXTS!r})[0].tolist())"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(hashed(TEXTS)[0].tolist())
    # and in another year: caches and trained weights rest on them
    assert hashed(["glad"])[0][0, 0].tolist() == GLAD


GLAD = [962740437, 123809875, 318418325, 779974693, 628140568, 1609754032, 354698822, 1011767066, 913597728, 462249183]


def test_lengths_padding_and_the_most_words():
    ids, length = tokenise([*TEXTS, "word " * 200, "abcdefghijklmnopqrstuvwxyz"])
    assert length.tolist() == [5, 0, 5, 4, 3, MOST_WORDS, 1]
    assert ids.dtype == length.dtype == torch.int64
    assert ids.shape == (7, MOST_WORDS, MOST_GRAMS)
    assert int(ids.max()) <= HASHES and int(ids.min()) == 0
    for row, count in enumerate(length.tolist()):
        assert (ids[row, :count, 0] > 0).all() and not ids[row, count:].any()
    nothing, none = tokenise([""])
    assert nothing.shape[:2] == (1, 0) and none.tolist() == [0]


@settings(max_examples=50)
@given(st.text(max_size=40), st.text(max_size=20))
def test_a_text_that_grows_keeps_its_words(text, more):
    ids, length = hashed([text + " "])
    longer, _ = hashed([text + " " + more])
    count, grams_ = int(length[0]), min(ids.shape[2], longer.shape[2])
    assert np.array_equal(ids[0, :count, :grams_], longer[0, :count, :grams_])


def test_an_unknown_way_to_cut_text():
    assert tokeniser("hashed") is tokenise
    with pytest.raises(GivenError, match="hashed"):
        tokeniser("guessed")


def test_a_words_company_changes_nothing():
    net = HashedWords(8, 64, 4).eval()
    ids, length = tokenise(TEXTS)
    together = net(ids)
    for row, text in enumerate(TEXTS):
        count = int(length[row])
        if count:
            assert torch.allclose(net(tokenise([text]).x_BTD), together[row : row + 1, :count], atol=1e-5)
    assert not net.buckets_KE.weight[0].any()


def encoder():
    return TextEncoder(32, buckets=512, numbers=16).eval()


def test_streamed_equals_whole_and_rows_equal_themselves_alone():
    net = encoder()
    ids, length = tokenise(TEXTS)
    with torch.no_grad():
        whole, end = net(ids, length, net.start(5))
        for row, text in enumerate(TEXTS):
            if not (count := int(length[row])):
                continue
            state, parts = net.start(1), []
            for word in tokenise([text]).x_BTD.split(2, 1):
                said, state = net(word, torch.tensor([word.shape[1]]), state)
                parts.append(said)
            assert torch.allclose(torch.cat(parts, 1), whole[row : row + 1, :count], atol=1e-4)
            for one, many in zip(leaves(state), leaves(end), strict=True):
                assert torch.allclose(one[0], many[row], atol=1e-4)
    assert not any(leaf[1].any() for leaf in leaves(end))  # the empty text


def system():
    return words_mamba.build(words_mamba.Config(**SMALL, hidden=16), ("anger", "joy", "sad"))


def test_the_system_answers_alike_alone_in_company_and_word_by_word():
    net = system().eval()
    with torch.no_grad():
        many, end = net({WORDS: tokenise(TEXTS * 13)}, net.start(65))
        assert many.shape == (65, 1, 3) and many.isfinite().all()
        for row, text in enumerate(TEXTS):
            one, _ = net({WORDS: tokenise([text])}, net.start(1))
            assert torch.allclose(one[0], many[row], atol=1e-4)
        ids, length = tokenise(TEXTS)
        early = length.clamp_max(2)
        state = net.start(5)
        for part in (Sequences(ids[:, :2], early), Sequences(ids[:, 2:], length - early)):
            said, state = net({WORDS: part}, state)
        assert torch.allclose(said, many[:5], atol=1e-4)
        assert all(torch.allclose(a, b[:5], atol=1e-4) for a, b in zip(leaves(state), leaves(end), strict=True))


def test_it_learns_four_texts_and_every_parameter_is_reached():
    net = system().train()
    texts, target = tokenise(["so glad", "how awful", "oh no", "wie schön"]), torch.tensor([0, 1, 2, 0])
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        logits, _ = net({WORDS: texts}, net.start(4))
        loss = torch.nn.functional.cross_entropy(logits[:, 0], target)
        optimiser.zero_grad()
        loss.backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []
        optimiser.step()
    net.eval()
    assert net({WORDS: texts}, net.start(4))[0][:, 0].argmax(1).tolist() == target.tolist()


class Flat(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, ids, length, like_B1):
        # zeros for each of the rows there are, not of those that were traced
        state = self.net.start(1)
        flat = iter([torch.zeros_like(like_B1).reshape(-1, *[1] * (x.dim() - 1)) + x for x in leaves(state)])
        return self.net({WORDS: Sequences(ids, length)}, like(state, flat))[0]


def test_it_exports_with_any_number_of_rows_and_words(exported):
    net = system().eval()
    ids, length = tokenise(["a b c", "so it is"])
    axes = {"ids": {0: "B", 1: "L", 2: "G"}, "length": {0: "B"}, "rows": {0: "B"}, "logits": {0: "B"}}
    play = exported(Flat(net), (ids, length, torch.zeros(2, 1)), ["ids", "length", "rows"], ["logits"], axes)
    ids, length = tokenise(TEXTS)
    (said,) = play((ids, length, torch.zeros(5, 1)))
    expected, _ = net({WORDS: Sequences(ids, length)}, net.start(5))
    np.testing.assert_allclose(said, expected.detach().numpy(), atol=1e-4)
