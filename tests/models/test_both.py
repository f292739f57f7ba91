"""Voice and words together: what is built in, what is learnt from made-up opinions, and the same answers without torch."""

import gzip
import json
from hashlib import sha256

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from clser.bench import both as bench
from clser.models import both_run
from clser.models.both import Both, Config
from clser.models.both_data import KINDS, Library, Mix, Voices, Words, pairs, read_answers, weights
from clser.models.both_fit import Choices, Training, fit, probabilities, published, run
from clser.models.both_judge import figures, judge
from clser.models.both_live import INPUTS, Fuser
from clser.models.data.clips import Clip
from clser.models.errors import GivenError, MissingError
from clser.models.export_both import About, load, parity, save, some
from clser.models.labels import HEADS, NONE, PUBLISHED

pytestmark = pytest.mark.torch

VOICE_HEADS = (*HEADS, NONE)
WORDS_HEADS = tuple(reversed(PUBLISHED))
VECTOR = 4
SMALL = Config(width=8, tokens=2, layers=1, attention_heads=2, hidden=8)
SHORT = Choices(SMALL, Training(epochs=12, batch=64, learning_rate=1e-2))


def opinions(true, heads, sharp, random):
    """Logits that lean to the right class."""
    logits = random.standard_normal((len(true), len(heads)))
    logits[np.arange(len(true)), [heads.index(PUBLISHED[label]) for label in true]] += sharp
    return logits.astype(np.float32)


def made_up(rows=420, seed=0):
    """Voices of six speakers in two corpora and three folds, and texts of two collections."""
    random = np.random.default_rng(seed)
    true = np.arange(rows) % len(PUBLISHED)
    who = np.arange(rows) % 6
    clips = tuple(Clip(f"{n}.wav", f"corpus{who[n] % 2}", f"s{who[n]}", "", PUBLISHED[true[n]]) for n in range(rows))
    logits = opinions(true, VOICE_HEADS, 1.5, random)
    known = logits + opinions(true, VOICE_HEADS, 0.5, random)
    known[:100] = np.nan
    voices = Voices(logits, known, clips, who % 3, VOICE_HEADS)

    def words(many):
        label = np.arange(many) % len(PUBLISHED)
        vector = random.standard_normal((many, VECTOR)).astype(np.float32)
        corpus = np.array(["text_a", "text_b"])[np.arange(many) // len(PUBLISHED) % 2]
        return Words(opinions(label, WORDS_HEADS, 1.5, random), vector, label, corpus, WORDS_HEADS)

    return voices, words(280), words(280)


@pytest.fixture(scope="module")
def learnt():
    voices, learn, test = made_up()
    return fit(voices, Library(learn), SHORT), voices, test


def shaken(seed=0, config=SMALL, heads=VOICE_HEADS):
    """A network with no weight at its beginning."""
    torch.manual_seed(seed)
    net = Both(config, heads, WORDS_HEADS, VECTOR).eval()
    with torch.no_grad():
        for part in net.parameters():
            part.add_(0.5 * torch.randn_like(part))
    return net


def given(net, rows=64, seed=0, **fixed):
    inputs = dict(zip(INPUTS, map(torch.from_numpy, some(net, rows, np.random.default_rng(seed))), strict=True))
    return inputs | {name: torch.full_like(inputs[name], value) for name, value in fixed.items()}


@pytest.mark.parametrize("heads", [VOICE_HEADS, HEADS])
def test_without_words_it_is_the_voice_to_the_last_bit(heads):
    net = shaken(heads=heads)
    inputs = given(net, words_there_B=0.0)
    for logits in (inputs["voice_BH"], inputs["voice_BH"].log_softmax(1)):
        told = net(**(inputs | {"voice_BH": logits, "words_BC": torch.full((64, 7), torch.nan)}))
        assert torch.equal(told.logits_BH, logits)
        assert torch.equal(told.weights_B2, torch.tensor([[1.0, 0.0]]).expand(64, 2))


def test_weights_add_up_to_one_and_words_count_where_there_are_some():
    net = shaken()
    told = net(**given(net))
    assert torch.allclose(told.weights_B2.sum(1), torch.ones(64))
    assert ((told.weights_B2 >= 0) & (told.weights_B2 <= 1)).all()
    assert (net(**given(net, words_there_B=1.0)).weights_B2[:, 1] > 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_mistrusted_weighs_less_whatever_the_network(seed):
    net = shaken(seed)
    trusted, mistrusted = (net(**given(net, words_there_B=1.0, suspect_B=value)) for value in (0.0, 1.0))
    assert (mistrusted.weights_B2[:, 1] < trusted.weights_B2[:, 1]).all()


def test_words_say_nothing_of_whether_there_is_a_voice_nor_of_calm():
    net = shaken()
    inputs = given(net, words_there_B=1.0)
    before, after = inputs["voice_BH"].softmax(1), net(**inputs).logits_BH.softmax(1)
    assert not torch.allclose(before, after, atol=1e-2)
    none, calm, neutral = (VOICE_HEADS.index(name) for name in (NONE, "calm", "neutral"))
    assert torch.allclose(before[:, none], after[:, none], atol=1e-5)
    assert torch.allclose(before[:, calm] / before[:, neutral], after[:, calm] / after[:, neutral], rtol=1e-3)


def test_words_can_only_say_so_much():
    net = shaken()
    inputs = given(net, words_there_B=1.0)
    inputs["words_BC"] *= 1e3
    told = net(**inputs)
    assert torch.isfinite(told.logits_BH).all()
    shift = published(net, told.logits_BH) - published(net, inputs["voice_BH"])
    # both gates are below 2: the words' evidence counts twice at most, and the voice's own at most doubles
    voice = -published(net, inputs["voice_BH"]).min()
    assert shift.abs().max() < 2 * (2 * 2 * SMALL.limit + voice)


def test_batch_company_makes_no_difference():
    net = shaken()
    inputs = given(net)
    whole = net(**inputs).logits_BH
    alone = torch.cat([net(**{name: part[n : n + 1] for name, part in inputs.items()}).logits_BH for n in range(64)])
    assert torch.allclose(whole, alone, atol=1e-5)


def test_it_learns_to_gain_from_right_words_and_not_to_lose_by_suspect_ones(learnt):
    net, voices, test = learnt
    true = voices.true()
    right = {}
    for number, kind in enumerate(KINDS):
        drawn = pairs(voices.logits_NH, true, Library(test), np.full(len(true), number), np.random.default_rng(5))
        logits, share = run(net, drawn.inputs())
        right[kind] = (probabilities(logits, net.heads).argmax(1) == true).mean()
        assert share[:, 1].max() == 0 if kind == "none" else share[:, 1].min() > 0
    assert right["right"] > right["none"] + 0.10
    assert right["wrong_suspect"] > right["none"] - 0.06
    assert right["wrong"] > right["none"] - 0.40
    assert right["wrong_suspect"] > right["wrong"]


def test_training_is_the_same_for_the_same_seed(learnt):
    net, voices, _ = learnt
    state = torch.random.get_rng_state()
    again = fit(voices, Library(made_up()[1]), SHORT)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), again.parameters(), strict=True))


def test_pairs_are_what_they_are_called():
    voices, learn, _ = made_up()
    true, library = voices.true(), Library(learn)
    random = np.random.default_rng(0)
    for number, kind in enumerate(KINDS):
        drawn = pairs(voices.logits_NH, true, library, np.full(len(true), number), random)
        assert (drawn.there_N == (kind != "none")).all()
        assert (drawn.suspect_N == kind.endswith("_suspect")).all()
        if kind != "none":
            same = learn.true_N[drawn.text_N] == true
            assert same.all() if kind.startswith("right") else not same.any()
            assert set(learn.corpus_N[drawn.text_N]) == {"text_a", "text_b"}
        else:
            assert not drawn.words_NC.any()
    with pytest.raises(GivenError, match="no text that is disgust"):
        Library(Words(*(part[learn.true_N != 1] for part in learn[:4]), WORDS_HEADS))
    with pytest.raises(GivenError, match="mix"):
        Mix(right=-1).shares()


def test_every_class_weighs_the_same_and_so_does_every_corpus_in_it():
    voices = made_up()[0]
    clips = tuple(clip for n, clip in enumerate(voices.clips) if clip.emotion != "fear" or n % 3)
    rows = np.array([n for n, clip in enumerate(voices.clips) if clip in clips])
    few = voices.of(rows)
    weight, true = weights(few), few.true()
    sums = [weight[true == label].sum() for label in range(7)]
    assert np.allclose(sums, sums[0])


def test_folds_judge_what_they_were_not_trained_on():
    voices, learn, test = made_up(210)
    quick = Choices(SMALL, Training(epochs=4, batch=64, learning_rate=1e-2))
    strangers, known = judge(voices, learn, test, quick, texts=2)
    found = figures(strangers)
    rows = {row["way"]: row for row in found["rows"]}
    assert found["none_is_voice_exactly"]
    assert rows["none"]["uar"] == rows["voice"]["uar"]
    assert rows["right"]["uar"] > rows["voice"]["uar"]
    low, high = rows["right"]["uar_interval"]
    assert low <= rows["right"]["uar"] <= high
    assert rows["right"]["words_counted"] > rows["right_suspect"]["words_counted"] > 0
    assert found["clips"] == 210
    assert found["speakers"] == 6
    assert len(found["temperatures"]) == 3
    assert set(found["by_collection"]) == {"text_a", "text_b"}
    assert known is not None
    assert len(known.true_N) == 2 * 110
    line = json.loads(json.dumps({"bench": "both", "strangers": found}))
    assert any(row.startswith("both, right text") for row in bench.table(line))


def test_the_file_says_the_same_and_what_it_is(tmp_path, learnt):
    net = learnt[0]
    about = save(tmp_path, net, About(VOICE_HEADS, WORDS_HEADS, VECTOR, SMALL, ("corpus0", "text_a"), seed=3))
    assert parity(net, tmp_path / "both.onnx", seed=4) < 1e-4
    again, said = load(tmp_path / "both.safetensors")
    assert said == about
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), again.parameters(), strict=True))
    fuser = Fuser(tmp_path / "both.onnx")
    assert fuser.about["kind"] == "both"
    assert fuser.heads == VOICE_HEADS
    assert (fuser.words_heads, fuser.vector) == (WORDS_HEADS, VECTOR)
    assert fuser.about["licence"]
    assert fuser.about["trained_on"] == ["corpus0", "text_a"]
    inputs = some(net, 5, np.random.default_rng(0))
    inputs[3][:] = 0.0
    inputs[1][:] = np.nan
    fused = fuser.fuse(*inputs)
    assert np.array_equal(fused.logits_BH, inputs[0])
    assert fused.weights_B2.tolist() == [[1.0, 0.0]] * 5
    with pytest.raises(MissingError, match="no such file"):
        Fuser(tmp_path / "other.onnx")
    with pytest.raises(MissingError, match="no such file"):
        load(tmp_path / "other.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(GivenError, match="holds no network"):
        load(tmp_path / "bad.safetensors")


def kept(folder, voices, fold, heads=VOICE_HEADS):
    """A run's answers."""
    folder.mkdir(exist_ok=True)
    rows = np.flatnonzero(voices.fold_N == fold)
    told = {
        key: np.array([str(getattr(voices.clips[n], key)) for n in rows]) for key in ("corpus", "speaker", "emotion")
    }
    told["emotion"][0] = NONE
    names = np.array([str(voices.clips[n].path) for n in rows])
    np.savez(folder / "answers.npz", heads=np.array(heads), name=names, logits=voices.logits_NH[rows], **told)
    return folder


def test_answers_are_read_once_each(tmp_path):
    voices = made_up(210)[0]
    folders = [kept(tmp_path / f"f{fold}", voices, fold) for fold in range(3)]
    read = read_answers(folders)
    assert len(read.clips) == 210 - 3
    assert set(read.fold_N) == {0, 1, 2}
    assert np.isnan(read.known_NH).all()
    with pytest.raises(GivenError, match="give each fold once"):
        read_answers([*folders, kept(tmp_path / "again", voices, 0)])
    with pytest.raises(GivenError, match="runs of one plan"):
        read_answers([folders[0], kept(tmp_path / "other", voices, 1, (*HEADS, "hush"))])
    with pytest.raises(MissingError, match="no answers there"):
        read_answers([tmp_path])


class Reads:
    """A text model that knows a word a label."""

    def __init__(self, path):
        self.about = {"trained_on": ["text_a"]}
        self.heads = WORDS_HEADS

    def read(self, texts):
        from clser.models.words_live import Read

        logits = np.array([[3.0 * (head in text) for head in self.heads] for text in texts], np.float32)
        return Read(logits, logits[:, :VECTOR])


def test_the_command_leaves_files_and_figures(tmp_path, monkeypatch, capsys):
    voices = made_up(210)[0]
    folders = [str(kept(tmp_path / f"f{fold}", voices, fold)) for fold in range(2)]
    part = tmp_path / "text_a"
    part.mkdir()
    lines = ["corpus,language,split,text,emotion"]
    for n in range(84):
        label = PUBLISHED[n % 7]
        lines.append(f"text_a,en,{('dev', 'test')[n // 7 % 2]},so much {label} {n},{label}")
    (part / "texts.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "w.onnx").write_bytes(b"w")
    monkeypatch.setattr(both_run, "Reader", Reads)
    asked = [
        "--answers",
        *folders,
        "--words",
        str(tmp_path / "w.onnx"),
        "--corpora",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
    ]
    asked += ["--texts", "a", "--set", "training.epochs=2", "--set", "net.width=8", "--set", "net.layers=1"]
    assert both_run.main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["strangers"]["clips"] == 138
    assert "known" not in found
    assert Fuser(tmp_path / "out" / "both.onnx").about["words"] == sha256(b"w").hexdigest()[:16]
    assert both_run.main([*asked, "--quick", "--set", "offsets=true"]) == 0
    said = Fuser(tmp_path / "out" / "both.onnx").about["calibration"]
    assert len(said["offsets"]) == len(VOICE_HEADS)
    assert said["temperature"] > 0
    assert both_run.main([*asked, "--set", "net.wide=8"]) == 2
    assert "wide" in capsys.readouterr().err
    assert both_run.main([*asked, "--answers", folders[0]]) == 2
    assert "two folders" in capsys.readouterr().err


def test_the_default_is_small():
    net = Both(Config(), VOICE_HEADS, WORDS_HEADS, 64)
    assert sum(part.numel() for part in net.parameters()) < 100_000
