"""`clser-models train`: a folder with all that was promised; killed or stopped, it ends as if it had not been."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import csv
import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

from clser.clients.commands import lint, models
from clser.clients.commands import train as command
from clser.models import plan, saved
from clser.models.errors import GivenError, MissingError

pytestmark = pytest.mark.torch
PLAN = """
system: tiny
corpora: [one, two]
folds: {count: 2, validation: 0.3}
takes: {count: 1, noise: 0.0}
sampling: {rows_per_epoch: 64, batch: 8}
optimiser: {epochs: 4, learning_rate: 0.02, averaging: 0.9}
onnx: false
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    tiny.zoo(folder / "zoo")
    tiny.corpora(folder / "corpora")
    (folder / "plan.yaml").write_text(PLAN)
    return folder


def arguments(place, out, *more):
    return [
        *("train", "--config", str(place / "plan.yaml"), "--corpora", str(place / "corpora"), "--out", str(out)),
        *("--zoo", str(place / "zoo"), "--cache", str(place / "cache"), "--threads", "1", "--fold", "0", *more),
    ]


def train(place, out, *more):
    parser = models._parser()
    return command.run(parser.parse_args(arguments(place, out, *more)))


@pytest.fixture(scope="module")
def finished(place):
    assert train(place, place / "whole") == 0
    return place / "whole"


def same_weights(one, other):
    return saved.about_of(one).digest == saved.about_of(other).digest


def started(place, out, *more):
    """The command in a process of its own, when its first epoch is over."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clser.clients.commands.models", *arguments(place, out, *more)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("epoch 1/"):
            return process
    raise AssertionError(f"it ended with {process.wait()}")


def test_the_folder_holds_what_was_promised(finished, place):
    names = {path.name for path in finished.iterdir()}
    assert {"model.safetensors", "progress.jsonl", "results.json", "answers.npz", "page.html", "checkpoint.pt"} <= names
    found = json.loads((finished / "results.json").read_text())
    assert found["on"] == "test"
    assert [row["corpus"] for row in found["rows"]] == ["one", "two"]
    assert all(row["speakers"] == 2 for row in found["rows"])
    lines = [json.loads(line) for line in (finished / "progress.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert {"loss", "valid_uar", "valid_nll", "learning_rate", "took_s"} <= set(lines[0])


def test_the_saved_system_gives_the_answers_that_were_kept(finished, place):
    system, about = saved.load(finished, [place / "zoo"])
    assert about.system == "tiny"
    assert about.heads == tiny.EMOTIONS
    assert about.trained_on == ("one", "two")
    assert about.fold == "0"
    assert about.fronts.keys() == {"logmel"}
    assert not system.training
    assert about.plan["optimiser"]["epochs"] == 4
    with np.load(finished / "answers.npz") as answers:
        assert answers["logits"].shape == (24, 3)
        assert set(answers["speaker"]) == {"one_0", "one_2", "two_0", "two_2"} or len(set(answers["speaker"])) == 4


def test_the_page_holds_the_figures_and_loads_nothing(finished):
    page = (finished / "page.html").read_text()
    found = json.loads((finished / "results.json").read_text())
    for row in found["rows"]:
        assert f"{100 * row['uar']:.1f} %" in page
    assert page.count("<svg") == 2
    assert found["digest"] in page
    assert "rows_per_epoch: 64" in page
    assert "<script" not in page
    assert "http" not in page


def test_tensorboard_gets_its_events_where_it_is_installed(finished):
    pytest.importorskip("tensorboard")
    assert any((finished / "events").iterdir())


def test_killed_and_resumed_it_ends_with_the_same_weights(finished, place, tmp_path):
    longer = ("--set", "optimiser.epochs=40")
    process = started(place, tmp_path / "out", "--checkpoint-steps", "1", *longer)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert train(place, tmp_path / "out", "--resume", *longer) == 0
    assert train(place, tmp_path / "whole", *longer) == 0
    assert same_weights(tmp_path / "whole", tmp_path / "out")
    assert not same_weights(finished, tmp_path / "out")
    assert len((tmp_path / "out" / "progress.jsonl").read_text().splitlines()) == 40


def test_sigterm_leaves_a_checkpoint_to_go_on_from(finished, place, tmp_path):
    longer = ("--set", "optimiser.epochs=400")
    process = started(place, tmp_path / "out", *longer)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 130
    assert "--resume" in told
    assert "Traceback" not in told
    assert (tmp_path / "out" / "checkpoint.pt").exists()
    with pytest.raises(GivenError, match=r"optimiser\.epochs is 4, was 400"):
        train(place, tmp_path / "out", "--resume")


def test_an_enrolled_system_is_tested_with_and_without_knowing(place, tmp_path, capsys):
    more = ("--set", "settings.enrols=true", "--set", "optimiser.epochs=1", "--set", "enrolled_test=[2]", "--json")
    assert train(place, tmp_path, *more) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["enrolled"].keys() == {"0", "2"}
    with np.load(tmp_path / "answers.npz") as answers:
        heard = np.isnan(answers["after_2"]).any(1)
    assert heard.sum() == 12  # half of each speaker's six clips
    assert sum(row["clips"] for row in found["enrolled"]["2"]["rows"]) == 12


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["optimiser.epoch=3"], r"plan\.yaml: there is no optimiser\.epoch; did you mean optimiser\.epochs"),
        (["optimiser.epochs=0"], r"optimiser\.epochs: Expected `int` >= 1"),
        (["system=tinny"], "system 'tinny' is unknown"),
        (["settings.drip=1"], "tiny: .*drip"),
        (["classes=[anger, boredom]"], "boredom"),
        (["texts=[meld]"], "meld"),
        (["corpora=[three]"], "no corpus three .* one, two"),
        (["settings.hears=false"], "reads words only"),
    ],
)
def test_what_cannot_be_is_said_in_one_message(place, tmp_path, changes, told):
    with pytest.raises((GivenError, MissingError), match=told):
        train(place, tmp_path, *(part for change in changes for part in ("--set", change)))


@pytest.mark.parametrize(
    ("more", "kind", "told"),
    [
        (("--device", "tpu"), GivenError, "--device tpu: give cpu or cuda:N"),
        (("--device", "cuda:99"), MissingError, "--device cuda:99: torch finds "),
        (("--threads", "-2"), GivenError, "--threads -2: "),
        (("--zoo", "/no/such/folder"), MissingError, "--zoo /no/such/folder: "),
        (("--cache", __file__), GivenError, "--cache .*nothing can be written there"),
        (("--out", f"{__file__}/out"), GivenError, "--out .*nothing can be written there"),
    ],
)
def test_what_cannot_be_used_is_found_before_anything_is_read(place, tmp_path, more, kind, told):
    with pytest.raises(kind, match=told):
        train(place, tmp_path / "out", *more)


def test_a_run_that_was_begun_is_found_before_anything_is_read(finished, place):
    with pytest.raises(GivenError, match="holds a run that was begun"):
        train(place, finished, "--corpora", "/no/such/folder")


def test_a_fold_that_is_not_there(place, tmp_path):
    with pytest.raises(GivenError, match="--fold 7: there are 0, 1"):
        train(place, tmp_path, "--fold", "7")


@pytest.mark.parametrize("scheme", ["one_speaker_out", "one_corpus_out", "sentences"])
def test_every_scheme_holds_somebody_out(place, tmp_path, scheme):
    more = ("--set", f"folds.scheme={scheme}", "--set", "optimiser.epochs=1", "--set", "sampling.rows_per_epoch=8")
    assert train(place, tmp_path, *more) == 0
    assert json.loads((tmp_path / "results.json").read_text())["rows"]


def test_shipped_plans_are_right():
    assert {"voice", "words"} <= set(plan.names())
    for name in plan.names():
        plan.load(name)


def test_the_linter_ends_with_1_where_it_finds_errors(place, capsys):
    parser = models._parser()
    good = parser.parse_args(["lint", "--manifest", str(place / "corpora" / "one" / "manifest.csv"), "--json"])
    assert lint.run(good) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == 24
    with pytest.raises(GivenError, match="no clip"):
        lint.run(SimpleNamespace(**{**vars(good), "classes": "boredom"}))
    with pytest.raises(GivenError, match="names no emotion"):
        lint.run(SimpleNamespace(**{**vars(good), "classes": " ,"}))
    with pytest.raises(GivenError, match="--folds 0: give 2 or more"):
        lint.run(SimpleNamespace(**{**vars(good), "folds": 0}))


def test_the_linter_says_who_it_knows_nothing_of(place, capsys):
    whole = place / "corpora" / "one" / "manifest.csv"
    bare = whole.with_name("bare.csv")
    with whole.open(newline="") as lines, bare.open("w", newline="") as out:
        writer = csv.DictWriter(out, ("file", "emotion"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(lines))
    for manifest, told in ((bare, True), (whole, False)):
        lint.run(models._parser().parse_args(["lint", "--manifest", str(manifest)]))
        assert ("24 clips name no speaker" in capsys.readouterr().out) == told


def test_a_folder_without_corpora_is_not_clean(tmp_path):
    with pytest.raises(MissingError, match=r"no corpora in .*manifest\.csv"):
        lint.run(models._parser().parse_args(["lint", "--corpora", str(tmp_path)]))
