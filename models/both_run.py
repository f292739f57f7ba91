"""Trains `both` from what a voice answered about speakers it never heard, judges it, and writes its files:

python -m clser.models.both_run --answers FOLD... --words model.onnx --corpora DIR --out DIR
"""

import argparse
import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from clser.models.both_data import Library, Voices, Words, calibration_of, read_answers, read_words
from clser.models.both_fit import Choices, fit
from clser.models.both_judge import figures, judge
from clser.models.data.corpora import corpora_folder
from clser.models.errors import ClserError, GivenError
from clser.models.export_both import PLAYED, WEIGHTS, About, save
from clser.models.words_live import Reader

JUDGED_ON = ("meld", "brighter", "goemotions", "xed")
MODEL = "model.onnx"


class Material(NamedTuple):
    """All there is to learn from and to be judged on."""

    voices: Voices
    learn: Words
    test: Words
    reader: Reader
    digest: str
    """Of the text model's file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """What the command ends with."""
    given = _parser().parse_args(arguments)
    try:
        found = work(given)
    except ClserError as error:
        sys.stderr.write(f"both: {error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def work(given: argparse.Namespace) -> dict[str, Any]:
    """Reads, trains, judges, writes the folder; gives back what its `results.json` holds."""
    torch.set_num_threads(given.threads)
    choices = choices_of(given.set)
    material = read(given.answers, given.words, corpora_folder(given.corpora), given.texts, given.seed)
    voices, reader = material.voices, material.reader
    calibration = calibration_of(voices, choices.offsets)
    net = fit(voices.calibrated(calibration), Library(material.learn), choices, given.seed, _tell)
    corpora = tuple(dict.fromkeys(clip.corpus for clip in voices.clips))
    about = save(
        given.out, net,
        About(
            heads=voices.heads, words_heads=reader.heads, vector=net.vector, settings=choices.net,
            trained_on=(*corpora, *reader.about["trained_on"]), calibration=calibration,
            words=material.digest, seed=given.seed, version=_version(),
        ),
    )  # fmt: skip
    found: dict[str, Any] = {
        "system": about.name, "digest": about.digest, "seed": given.seed, "temperature": calibration.temperature,
        "offsets": choices.offsets,
        "parameters": sum(part.numel() for part in net.parameters()), "onnx_bytes": (given.out / PLAYED).stat().st_size,
    }  # fmt: skip
    if not given.quick:
        found |= measured(material, choices, given.seed)
    (given.out / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _say(f"{given.out}: {WEIGHTS}, {PLAYED}, results.json")
    return found


def read(folders: Sequence[Path], words: Path, corpora: Path, judged_on: Sequence[str], seed: int) -> Material:
    """`words`: the .onnx of a text model, or the folder that holds it."""
    voices = read_answers(folders)
    path = words / MODEL if words.is_dir() else words
    reader = Reader(path)
    learn, test = read_words(reader, corpora, judged_on, seed)
    _say(f"{len(voices.clips)} clips, {len(learn.true_N)} texts to learn from, {len(test.true_N)} to be judged on")
    return Material(voices, learn, test, reader, sha256(path.read_bytes()).hexdigest()[:16])


def measured(material: Material, choices: Choices, seed: int) -> dict[str, Any]:
    """The figures for strangers and, where the answers have them, for speakers whom the voice has heard before."""
    if len(set(material.voices.fold_N.tolist())) < 2:
        raise GivenError("one fold's answers: to be judged for strangers it takes two folders or more, or give --quick")
    strangers, known = judge(*material[:3], choices, seed=seed, tell=_say)
    found = {"strangers": figures(strangers, seed)}
    if known is not None:
        found["known"] = figures(known, seed)
    return found


def choices_of(changes: Sequence[str]) -> Choices:
    """The defaults, but for `net.width=16` and the like."""
    values: dict[str, Any] = json.loads(msgspec.json.encode(Choices()))
    for change in changes:
        path, _, value = change.partition("=")
        *outer, last = path.split(".")
        at = values
        for name in outer:
            at = at.setdefault(name, {}) if isinstance(at, dict) else {}
        try:
            at[last] = json.loads(value)
        except json.JSONDecodeError as error:
            raise GivenError(f"--set {change}: no number after the equals sign; give NAME=NUMBER") from error
    try:
        return msgspec.convert(values, Choices)
    except msgspec.ValidationError as error:
        raise GivenError(f"--set: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("clser.models.both_run", description="train what joins voice and words")
    parser.add_argument(
        "--answers", nargs="+", type=Path, required=True, metavar="DIR",
        help="folders of runs of one plan, each with another fold held out",
    )  # fmt: skip
    parser.add_argument("--words", type=Path, required=True, metavar="PATH", help="a text model's .onnx, or its folder")
    parser.add_argument("--corpora", metavar="DIR", help="folder of the corpora (default: $CLSER_CORPORA)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the model and its figures")
    parser.add_argument(
        "--texts", nargs="+", default=JUDGED_ON, metavar="NAME", help=f"to judge on (default: {' '.join(JUDGED_ON)})"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as training.epochs=8")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch")
    parser.add_argument("--quick", action="store_true", help="train and write, without figures")
    return parser


def _tell(epoch: int, loss: float) -> None:
    _say(f"epoch {epoch}: loss {loss:.4f}")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _version() -> str:
    try:
        return version("clser-stream")
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
