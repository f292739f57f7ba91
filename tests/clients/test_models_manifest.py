"""`clser-models manifest`: what is written, said and refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clser.clients.commands import manifest, models
from clser.engine.errors import GivenError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three recordings named as EmoDB names them."""
    folder = tmp_path / "download" / "wav"
    folder.mkdir(parents=True)
    for name in ("03a01Fa", "08a01Wa", "08a01Lb"):
        soundfile.write(folder / f"{name}.wav", np.zeros(1600), 16_000)
    return folder.parent


def run(*arguments: object) -> int:
    return manifest.run(models._parser().parse_args(["manifest", *map(str, arguments)]))


def emotions(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as lines:
        return [row["emotion"] for row in csv.DictReader(lines)]


def test_what_is_written_and_said(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "emodb.csv"
    assert run("auto", corpus, "--out", out) == 0
    assert emotions(out) == ["happiness", "boredom", "anger"]
    said = capsys.readouterr().out
    assert said.startswith("EmoDB: 3 recordings (535 when whole")
    assert said.rstrip().endswith(f"next: clser-models lint --manifest {out}")
    with pytest.raises(GivenError, match="is there already"):
        run("auto", corpus, "--out", out)
    assert run("emodb", corpus, "--out", out, "--overwrite", "--json", "--also", "L=neutral", "--also", "W=") == 0
    assert emotions(out) == ["happiness", "neutral"]
    assert json.loads(capsys.readouterr().out) == {
        "kind": "emodb",
        "out": str(out),
        "recordings": 2,
        "told": [{"what": "left out: anger", "count": 1, "examples": []}],
    }


def test_nothing_is_written_where_nothing_is_found(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(GivenError, match="LABEL=EMOTION is needed"):
        run("emodb", corpus, "--out", tmp_path / "x.csv", "--also", "L")
    with pytest.raises(GivenError, match="no reader"):
        run("berlin", corpus, "--out", tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_progress_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    manifest._tell(manifest.EVERY - 1)
    manifest._tell(manifest.EVERY)
    assert capsys.readouterr().err == f"{manifest.EVERY} recordings looked at\n"
