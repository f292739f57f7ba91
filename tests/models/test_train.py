"""Training: goes on where it stopped to the step, draws what it should, learns."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

from trials import Quiet

from clser.models import systems
from clser.models.answers import logits_of
from clser.models.batches import Drawer
from clser.models.data.cache import Features
from clser.models.data.corpora import Text
from clser.models.encoders.text import tokeniser
from clser.models.errors import FailedError, GivenError
from clser.models.examples import UNASKED, Examples, TakeFeatures, class_masks, pad
from clser.models.labels import HEADS
from clser.models.losses import cross_entropy
from clser.models.plan import from_values
from clser.models.runs import split_texts
from clser.models.train import Running, StoppedError, asked_of, loss_of, train
from clser.models.validation import Validation

pytestmark = pytest.mark.torch
SMALL = {
    "system": "tiny",
    "sampling": {"rows_per_epoch": 48, "batch": 8, "enrolled_most": 3},
    "optimiser": {"epochs": 2, "averaging": 0.8, "learning_rate": 0.01},
}


def plan(**changes):
    values = json.loads(json.dumps(SMALL))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            values.setdefault(section, {})[key] = value
        else:
            values[section] = value
    return from_values(values, "here")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return [tiny.zoo(tmp_path_factory.mktemp("zoo"))]


@pytest.fixture(scope="module")
def examples():
    clips, features = tiny.clips_and_features()
    take = TakeFeatures.of({"logmel": features}, {"logmel": 1})
    to_train = [n for n, clip in enumerate(clips) if not clip.speaker.endswith("3")]
    heads = tiny.EMOTIONS
    return Examples(heads, clips, take, [take], to_train, {"logmel": 1}, 640, masks=class_masks(heads, clips))


@pytest.fixture(scope="module")
def reading(examples):
    words = {"anger": "furious rage", "neutral": "table chair", "sadness": "tears alone"}
    texts = [Text("books", "en", "train", f"{words[e]} {n}", (e,)) for n in range(10) for e in tiny.EMOTIONS]
    texts.append(Text("books", "en", "train", "both of them", ("anger", "sadness")))
    masks = class_masks(examples.heads, examples.clips, texts)
    return replace(examples, texts=texts, text_indices=range(len(texts)), tokenise=tokeniser("hashed"), masks=masks)


VALIDATION = Validation([n for n in range(48) if n // 6 % 4 == 3])


def run(zoo, examples, asked, out, *, settings=None, validation=VALIDATION, watcher=None, seed=0, **rest):
    torch.manual_seed(seed)
    system = systems.build("tiny", settings or {}, examples.heads, zoo)
    return train(system, examples, validation, asked, out, watcher=watcher or Quiet(), seed=seed, **rest)[0]


def weights(net):
    return torch.cat([part.flatten() for part in net.state_dict().values()])


class StopAfter:
    """Asks for the end after so many steps."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("steps", [1, 5, 6, 7, 11])
def test_a_run_stopped_at_any_step_ends_as_if_it_had_not_been(zoo, examples, tmp_path, steps):
    settings = {"enrols": True}
    whole = run(zoo, examples, plan(), tmp_path / "whole", settings=settings)
    with pytest.raises(StoppedError, match="--resume"):
        run(zoo, examples, plan(), tmp_path / "parts", settings=settings, running=Running(stop=StopAfter(steps)))
    resumed = run(zoo, examples, plan(), tmp_path / "parts", settings=settings, resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    one, other = ((tmp_path / name / "progress.jsonl").read_text().splitlines() for name in ("whole", "parts"))
    assert len(one) == len(other) == 2
    for a, b in zip(one, other, strict=True):
        assert {**json.loads(a), "took_s": 0} == {**json.loads(b), "took_s": 0}


def test_stopped_twice_with_texts_and_a_plateau(zoo, reading, tmp_path):
    asked = plan(optimiser__schedule="plateau", optimiser__plateau_epochs=1, sampling__drop_words=0.3)
    settings = {"reads": True}
    whole = run(zoo, reading, asked, tmp_path / "whole", settings=settings)
    for steps in (4, 3):
        with pytest.raises(StoppedError):
            run(
                zoo,
                reading,
                asked,
                tmp_path / "p",
                settings=settings,
                resume=True,
                running=Running(stop=StopAfter(steps)),
            )
    resumed = run(zoo, reading, asked, tmp_path / "p", settings=settings, resume=True)
    assert torch.equal(weights(whole), weights(resumed))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(zoo, examples, tmp_path):
    first, second, third = (
        weights(run(zoo, examples, plan(), tmp_path / str(n), seed=seed)) for n, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_other_settings_are_refused_and_named(zoo, examples, tmp_path):
    run(zoo, examples, plan(), tmp_path)
    with pytest.raises(GivenError, match=r"optimiser\.learning_rate is 0\.02, was 0\.01; seed is 3, was 0"):
        run(zoo, examples, plan(optimiser__learning_rate=0.02), tmp_path, resume=True, seed=3)
    with pytest.raises(GivenError, match="--resume"):
        run(zoo, examples, plan(), tmp_path)


def test_a_finished_run_resumed_is_finished(zoo, examples, tmp_path):
    whole = run(zoo, examples, plan(), tmp_path)
    watcher = Quiet()
    assert torch.equal(weights(whole), weights(run(zoo, examples, plan(), tmp_path, resume=True, watcher=watcher)))
    assert not [line for line in watcher.lines if "loss" in line]


def test_a_torn_checkpoint_says_so(zoo, examples, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(FailedError, match="begin anew"):
        run(zoo, examples, plan(), tmp_path, resume=True)


def test_it_learns_and_keeps_the_best_weights(zoo, examples, tmp_path):
    asked = plan(optimiser__epochs=12, optimiser__patience=3, optimiser__learning_rate=0.03, masking__gain=0.1)
    trained = run(zoo, examples, asked, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    best = max(line["valid_uar"] for line in lines)
    assert best > 0.95
    assert len(lines) < 12  # nothing is better than all right: it stopped
    said = logits_of(trained, examples, VALIDATION.clips).argmax(1)
    true = [tiny.EMOTIONS.index(examples.clips[n].emotion) for n in VALIDATION.clips]
    assert np.mean(said == true) == pytest.approx(best, abs=0.05)


def test_a_tiny_batch_is_learnt(zoo, reading):
    """Each kind of row: voice, voice with words, words alone."""
    torch.manual_seed(0)
    system = systems.build("tiny", {"reads": True, "drop": 0.0}, reading.heads, zoo)
    asked = plan(sampling__words_only=0.3, sampling__drop_voice=0.2, sampling__drop_words=0.2, loss__smoothing=0.0)
    drawer = Drawer(reading, asked, 0)
    batch = drawer.batch(drawer.epoch(0), 0, 0)
    optimiser = torch.optim.Adam(system.parameters(), 0.05)
    for _ in range(80):
        loss = loss_of(system, batch, asked.loss, 5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5


def test_a_loss_that_is_no_number_ends_the_run(zoo, examples, tmp_path):
    broken = replace(examples, masks={corpus: mask * float("nan") for corpus, mask in examples.masks.items()})
    with pytest.raises(FailedError, match="learning_rate"):
        run(zoo, broken, plan(), tmp_path, validation=Validation())


def test_without_validation_the_last_weights_are_kept(zoo, examples, tmp_path):
    run(zoo, examples, plan(), tmp_path, validation=Validation())
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all("valid_uar" not in line for line in lines)


@pytest.mark.parametrize(
    "changes", [{"loss__kind": "focal"}, {"loss__weighted": True}, {"optimiser__precision": "half"}]
)
def test_other_losses_and_precisions_run(zoo, examples, tmp_path, changes):
    run(zoo, examples, plan(optimiser__epochs=1, **changes), tmp_path)
    assert np.isfinite(json.loads((tmp_path / "progress.jsonl").read_text())["loss"])


def test_a_system_that_answers_at_the_end_is_trained_on_its_one_answer(zoo, examples, tmp_path):
    run(zoo, examples, plan(optimiser__epochs=1), tmp_path, settings={"streams": "end"})


# --- what is drawn ------------------------------------------------------------------------------------------------


def test_corpora_of_unlike_size_are_drawn_evenly_when_asked(examples):
    fewer = replace(examples, indices=[n for n in examples.indices if n < 24 or n % 6 == 0])
    for balance, share in ((1.0, 0.5), (0.0, 3 / 21)):
        drawer = Drawer(fewer, plan(sampling__rows_per_epoch=4000, sampling__balance=balance), 0)
        drawn = drawer.epoch(0)
        assert np.mean([examples.clips[n].corpus == "two" for n in drawn.index_N]) == pytest.approx(share, abs=0.03)
        labels = Counter(examples.clips[n].emotion for n in drawn.index_N if examples.clips[n].corpus == "one")
        assert max(labels.values()) < 1.15 * min(labels.values())


def test_no_clip_that_is_held_out_is_drawn_or_known(examples):
    known = torch.arange(48.0)[:, None]
    held = replace(examples, known_TNX=[known], clean_NX=known)
    drawer = Drawer(held, plan(sampling__rows_per_epoch=400, sampling__enrolled=1.0, sampling__enrolled_most=1), 0)
    drawn = drawer.epoch(0)
    allowed = set(examples.indices)
    assert set(drawn.index_N.tolist()) == allowed
    for step, rows in enumerate(drawn.groups):
        batch = drawer.batch(drawn, 0, step)
        for row, told in zip(rows, batch.speaker_BX[:, 0].tolist(), strict=True):
            mine = int(drawn.index_N[row])
            assert int(told) in allowed - {mine}
            assert examples.clips[int(told)].who == examples.clips[mine].who


def test_a_class_that_a_corpus_lacks_is_unlikely_and_not_impossible(examples):
    masks = class_masks(HEADS, examples.clips)
    assert [masks["one"][HEADS.index(name)] for name in ("anger", "boredom")] == [0.0, UNASKED]
    assert -10.0 < UNASKED < 0.0


def test_a_masked_class_learns_hardly_anything(examples):
    logits = torch.zeros(1, 3, requires_grad=True)
    cross_entropy(logits, torch.tensor([0]), mask_BC=torch.tensor([[0.0, 0.0, UNASKED]]), smoothing=0.1).backward()
    assert 0.0 < logits.grad[0, 2] < 0.05 < logits.grad[0, 1]


def test_each_clip_is_paired_with_another_persons_text_of_its_label(reading):
    drawer = Drawer(reading, plan(sampling__rows_per_epoch=200, sampling__words_only=0.25), 0)
    drawn = drawer.epoch(0)
    assert drawn.voice_N.sum() == 150
    for index, voice, text in zip(drawn.index_N, drawn.voice_N, drawn.text_N, strict=True):
        if voice:
            assert reading.texts[text].emotions == (reading.clips[index].emotion,)
        else:
            assert text == index
    batch = drawer.batch(drawn, 0, 0)
    words_alone = batch.frames_B == 0
    assert 0 < words_alone.sum() < len(words_alone)
    assert (batch.given["words"].length_B > 0).all()


def test_voice_or_words_are_left_out_now_and_then_but_never_both(reading):
    asked = plan(
        sampling__rows_per_epoch=400, sampling__words_only=0.0, sampling__drop_voice=0.4, sampling__drop_words=0.4
    )
    drawer = Drawer(reading, asked, 0)
    drawn = drawer.epoch(0)
    voices, words = [], []
    for step in range(drawer.steps):
        batch = drawer.batch(drawn, 0, step)
        voices.append(batch.frames_B > 0)
        words.append(batch.given["words"].length_B > 0)
    voiced, worded = torch.cat(voices), torch.cat(words)
    assert (voiced | worded).all()
    assert (~voiced).float().mean() == pytest.approx(0.4, abs=0.08)
    assert (~worded).float().mean() == pytest.approx(0.4, abs=0.08)


def test_a_text_with_two_labels_is_a_soft_target(reading):
    assert reading.text_target(30).tolist() == [0.5, 0.0, 0.5]


def test_texts_held_out_stand_nowhere_else():
    def text(words, split, corpus="a"):
        return Text(corpus, "en", split, words, ("anger",))

    texts = [
        text("One", "train"),
        text("two", "dev"),
        text("  TWO ", "train"),
        text("three", "test"),
        text("three", "train"),
    ]
    texts += [text(f"number {n}", "projected", "b") for n in range(200)]
    to_train, to_validate = split_texts(texts, 0.1)
    assert to_train[0] == 0
    assert not {2, 3, 4} & {*to_train, *to_validate}
    assert 1 in to_validate
    assert 190 < len(to_train) < 200
    assert len({*to_train} & {*to_validate}) == 0
    assert split_texts(texts, 0.0)[1] == []


# --- batches ------------------------------------------------------------------------------------------------------


def test_a_batch_holds_each_row_and_zeros_behind():
    features = pad([np.ones((3, 2)), np.ones((5, 2))])
    assert features.shape == (2, 5, 2)
    assert features.sum((1, 2)).tolist() == [6.0, 10.0]
    assert pad([np.ones((3, 2))], 7).shape == (1, 7, 2)


def test_fronts_of_other_frame_rates_are_cut_at_the_same_place(examples):
    clips = examples.clips
    slow = examples.clean.by_front["logmel"]
    marked = np.repeat(np.arange(len(slow.features)), 4)[:, None].astype(np.float32)
    fast = Features(np.repeat(marked, 9, 1), slow.starts * 4)
    slow = Features(np.repeat(np.arange(len(slow.features), dtype=np.float32)[:, None], 240, 1), slow.starts)
    take = TakeFeatures.of({"logmel": slow, "prosody": fast}, {"logmel": 1, "prosody": 4})
    both = replace(examples, takes=[take], clean=take, ratios={"logmel": 1, "prosody": 4})
    plain = plan(masking__gain=0.0, masking__colour=0.0, masking__bands=0, masking__times=0, sampling__cut=1.0)
    drawer = Drawer(both, plain, 0)
    batch = drawer.batch(drawer.epoch(0), 0, 0)
    assert len(clips) == 48
    assert torch.equal(batch.given["prosody"].length_B, 4 * batch.given["logmel"].length_B)
    assert torch.equal(batch.given["prosody"].x_BTD[:, ::4, 0], batch.given["logmel"].x_BTD[:, :, 0])


def test_masking_hangs_on_the_step_alone_and_leaves_padding_out_of_means(examples):
    drawer = Drawer(examples, plan(), 0)
    drawn = drawer.epoch(3)
    one, other = drawer.batch(drawn, 3, 1), drawer.batch(drawer.epoch(3), 3, 1)
    assert torch.equal(one.given["logmel"].x_BTD, other.given["logmel"].x_BTD)
    assert not torch.equal(one.given["logmel"].x_BTD, drawer.batch(drawn, 3, 2).given["logmel"].x_BTD)


def test_warping_the_bands_runs_and_keeps_the_level(examples):
    still = {"masking__gain": 0.0, "masking__colour": 0.0, "masking__bands": 0, "masking__times": 0}
    one = Drawer(examples, plan(**still), 0)
    other = Drawer(examples, plan(**still, masking__warp=0.1), 0)
    a, b = (d.batch(d.epoch(0), 0, 0).given["logmel"].x_BTD[..., :192] for d in (one, other))
    assert not torch.equal(a, b)
    assert abs(float(a.mean() - b.mean())) < 0.1


# --- answers ------------------------------------------------------------------------------------------------------


def test_answers_keep_the_order_they_were_asked_in(zoo, examples):
    system = systems.build("tiny", {}, examples.heads, zoo).eval()
    together = logits_of(system, examples, [5, 2, 9])
    alone = np.concatenate([logits_of(system, examples, [index]) for index in (5, 2, 9)])
    assert np.abs(together - alone).max() < 1e-5


def test_answers_to_texts_alone_and_with_voice(zoo, reading):
    system = systems.build("tiny", {"reads": True}, reading.heads, zoo).eval()
    alone = logits_of(system, reading, (), [0, 1])
    with_voice = logits_of(system, reading, [3, 4], [0, 1])
    voice = logits_of(system, reading, [3, 4])
    assert np.abs(with_voice - alone - voice).max() < 1e-5


def test_what_decides_a_run_is_told(examples):
    told = asked_of(plan(), examples, VALIDATION, 5, "2")
    assert told["seed"] == 5
    assert told["fold"] == "2"
    assert told["optimiser"]["averaging"] == 0.8
    json.dumps(told)
