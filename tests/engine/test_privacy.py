import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import Rig, run, sound

from clser.engine.privacy import Keeper, PrivacyConfig
from clser.engine.records import Result, Status
from examples import EXAMPLES

SPOKEN = sound([(False, 500), (True, 1000), (False, 500), (True, 1500), (False, 500)])


async def hear(**privacy: str) -> Rig:
    async with Rig(privacy=privacy) as rig:
        stream = rig.engine.open("kitchen")
        await stream.feed(SPOKEN)
        await stream.close()
        if rig.engine._keeper is not None:
            await rig.engine._keeper._waiting.join()  # its thread has written, or tried to
        await rig.clock.advance(1.1)
    assert len(rig.finals()) == 2
    return rig


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every place an engine might write to."""
    for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk that takes the first half of what is written."""

        def __init__(self, path: Path) -> None:
            self._file = path.open("ab", buffering=0)

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def tell(self) -> int:
            return self._file.tell()

        def truncate(self, size: int) -> int:
            return self._file.truncate(size)

        def write(self, line: bytes) -> int:
            return self._file.write(line[: len(line) // 2])

    path = tmp_path / "finals.jsonl"
    keeper = Keeper(PrivacyConfig(purpose="a test", keep_results=str(path)))
    example = EXAMPLES["result"]
    assert isinstance(example, Result)
    keeper._write(example, np.zeros(0, np.int16))
    whole = path.read_bytes()
    full = Full(path)
    monkeypatch.setattr(Path, "open", lambda self, *_, **__: full)
    with pytest.raises(OSError, match="space"):
        keeper._write(example, np.zeros(0, np.int16))
    monkeypatch.undo()
    assert path.read_bytes() == whole


def test_nothing_is_written_by_default(elsewhere: Path) -> None:
    run(hear())
    assert files(elsewhere) == []


def test_a_purpose_alone_keeps_nothing(elsewhere: Path) -> None:
    run(hear(purpose="a study"))
    assert files(elsewhere) == []


def test_kept_sound_is_the_utterances_with_their_purpose(tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "sound"
    rig = run(hear(keep_sound=str(folder), purpose="a study of doors"))
    paths = sorted(folder.iterdir())
    assert [path.suffix for path in paths] == [".flac", ".flac"]
    for path, final in zip(paths, rig.finals(), strict=True):
        assert path.name.startswith("kitchen-")
        with soundfile.SoundFile(path) as file:
            assert (file.samplerate, file.channels) == (16_000, 1)
            assert "a study of doors" in file.comment
            assert (file.read(dtype="int16") == SPOKEN[final.start_sample : final.end_sample]).all()


def test_kept_results_are_the_finals_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "finals.jsonl"
    rig = run(hear(keep_results=str(path), purpose="a study"))
    run(hear(keep_results=str(path), purpose="a study"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["stage"], line["end_sample"]) for line in lines] == [
        ("final", final.end_sample) for final in rig.finals()
    ] * 2
    assert lines[0]["seq"] > 0


def test_only_the_owner_can_read_what_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        run(hear(keep_sound=str(tmp_path / "s"), keep_results=str(tmp_path / "r" / "f.jsonl"), purpose="a study"))
    finally:
        os.umask(before)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r" / "f.jsonl").stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "s").iterdir()} == {0o600}


@pytest.mark.parametrize("key", ["keep_sound", "keep_results"])
def test_what_cannot_be_written_is_counted_and_said_and_the_engine_goes_on(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("in the way")
    rig = run(hear(**{key: str(tmp_path / "file" / "below"), "purpose": "a study"}))
    stopping = [s for s in rig.of(Status) if s.event == "stopping"]
    assert stopping[-1].counters["not_kept"] == 2
    (beat,) = [s for s in rig.of(Status) if s.event == "heartbeat"]
    assert "could not be kept" in beat.detail
