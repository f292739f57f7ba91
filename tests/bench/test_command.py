"""The command, through real processes.

What a command is as a process is seen once; the others are called from here, where their lead-in can be made short. What
they measure runs in processes of its own all the same.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import soundfile

from clser.bench import capacity, command, soak
from clser.clients.clips import demo_clip, demo_segments

CARD = {"bench", "version", "machine", "config", "model", "seed", "started"}


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "CLSER_CORPORA"}
    return subprocess.run(
        [sys.executable, "-m", "clser.bench.command", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**own, **environment},
    )


def called(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Its standard output."""
    command.measure(command._parser().parse_args(arguments))
    return capfd.readouterr().out


def last_line(out: str, name: str) -> dict[str, Any]:
    assert out.startswith(f"clser-bench {name} ")
    line: dict[str, Any] = msgspec.json.decode(out.splitlines()[-1])
    assert set(line) >= CARD
    assert line["bench"] == name
    assert len(line["model"]["digest"]) == len(line["config"]["digest"]) == 16
    return line


@pytest.fixture(autouse=True)
def no_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(command.CORPORA, raising=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of short phrases: the first second of each of the bundled ones."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "emodb").mkdir()
    pcm, rate_hz = soundfile.read(demo_clip(), dtype="int16")
    rows = []
    for number, segment in enumerate(demo_segments()):
        start = round(segment.start_s * rate_hz)
        soundfile.write(folder / "emodb" / f"{number}.wav", pcm[start : start + rate_hz], rate_hz)
        rows.append([f"{number}.wav", "emodb", str(number), "", segment.played, ""])
    with (folder / "emodb" / "manifest.csv").open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([["file", "corpus", "speaker", "gender", "emotion", "note"], *rows])
    return folder


@pytest.mark.slow
def test_latency_of_three_phrases(tmp_path: Path, clips: Path) -> None:
    arguments = ("--utterances", "3", "--corpora", str(clips), "--set", "segment.end_ms=200")
    done = bench("latency", *arguments, "--json", str(tmp_path / "line.json"))
    assert done.returncode == 0, done.stderr
    line = last_line(done.stdout, "latency")
    assert line["sound"] == "corpora"
    assert (tmp_path / "line.json").read_text() == done.stdout.splitlines()[-1] + "\n"
    assert (line["lost"], line["missed_messages"], line["load_blocked"]) == (0, 0, 0)
    assert line["finals"] >= 4
    for name in ("first_emotion_ms", "final_ms", "after_endpoint_ms", "loop_lag_ms"):
        assert set(line[name]) == {"p50", "p95", "p99", "n"}
        assert line[name]["p99"] is None
    assert set(line["stage_ms"]) == {"capture", "vad", "queue", "infer", "fuse"}
    assert line["final_ms"]["p50"] > 100
    assert line["first_emotion_ms"]["n"] == 3
    assert line["after_endpoint_ms"]["p50"] > 0
    # seen from outside it is never less than the engine accounts for
    assert line["after_endpoint_ms"]["p50"] >= line["own_account_ms"]["p50"] - 0.5
    assert 0 < line["rtf"] < 5
    assert line["frames_computed_once"] == 1.0
    assert line["ready_s"] > 0
    assert line["rss_mb"] > 10


@pytest.mark.slow
def test_capacity_of_two_streams(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(capacity, "WARM_UP_S", 1.0)
    out = called(capfd, "capacity", "--streams", "2", "--seconds", "4", "--duty", "0.7")
    line = last_line(out, "capacity")
    (row,) = line["rows"]
    assert set(row) >= {
        "streams",
        "lag_slope",
        "lag_slope_error",
        "after_endpoint_ms",
        "loop_lag_ms",
        "drops",
        "rss_mb",
    }
    assert (row["streams"], line["duty"]) == (2, 0.7)
    assert row["drops"]["lost_samples"] == row["drops"]["unclosed_streams"] == row["drops"]["missed_messages"] == 0
    assert line["streams_max"] in (0, 2)
    assert len(row["lag_by_second"]) >= 3


@pytest.mark.slow
def test_a_soak_with_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(soak, "WARM_UP_S", 1.0)
    monkeypatch.setattr(soak, "SETTLE_S", 1.0)
    monkeypatch.setattr(soak, "SCENE_S", 10.0)
    arguments = ("--minutes", "0.12", "--streams", "2", "--duty", "0.6", "--kills", "1", "--plot", str(tmp_path))
    line = last_line(called(capfd, "soak", *arguments), "soak")
    assert (line["minutes"], line["streams"], line["kills"]) == (0.12, 2, 1)
    assert (line["lost"], line["doubled"], line["unexpected"], line["where"]) == (0, 0, 0, [])
    assert line["finals"] >= line["expected"] >= 2
    for name in ("recover_s", "recover_to_result_s"):
        assert set(line[name]) == {"p50", "p95", "max", "n"}
        assert line[name]["n"] == 1
    assert 0 < line["recover_s"]["max"] <= line["recover_to_result_s"]["max"]
    assert line["workers_lost"] == 1
    assert line["unclosed_streams"] == line["lost_samples"] == line["missed_messages"] == 0
    assert isinstance(line["lag_slope"], float)
    assert isinstance(line["rss_slope_mb_h"], float)
    assert set(line["cpu"]) == {"engine", "workers", "reader", "load"}
    assert line["cpu"]["workers"] > 0
    assert (tmp_path / "soak.png").stat().st_size > 1000


def test_vad_on_the_bundled_clip(capfd: pytest.CaptureFixture[str]) -> None:
    line = last_line(called(capfd, "vad", "--minutes", "3"), "vad")
    for name in ("silero", "webrtc"):
        assert set(line[name]) >= {"auc", "onset_error_ms", "offset_error_ms", "missed", "false_starts", "us_per_frame"}
        assert set(line[name]["by_condition"]) == {"clean", "20 dB", "10 dB", "5 dB", "0 dB"}
    assert line["silero"]["by_condition"]["clean"]["auc"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required: BENCH"),
        (("latency", "--set", "segment.end=3"), "did you mean segment.end_ms"),
        (("latency", "--config", "nowhere"), "give one of"),
        (("capacity", "--streams", "1,x"), "'x': give a whole number"),
        (("capacity", "--duty", "0"), "give a share of time"),
        (("soak",), "required: --minutes"),
        (("soak", "--minutes", "1", "--kills", "9"), "--kills 9: in 60 s they would be 6.7 s apart"),
        (("overload", "--capacity", "10", "--factor", "0.5"), "5 streams where 10 are carried"),
        (("vad", "--segments", "nowhere.csv"), "--segments nowhere.csv"),
        (("bus", "--corpora", "nowhere"), "there is no such folder"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_2(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, since most of a command's life is importing; the next test sees that it is the same there."""
    monkeypatch.setattr(sys, "argv", ["clser-bench", *arguments])
    monkeypatch.setattr(command.shell, "set_up_log", lambda *_: None)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as over:
        command.main()
    assert over.value.code == 2
    err = capfd.readouterr().err
    (line,) = [each for each in err.splitlines() if each.startswith("clser-bench: ")]
    assert said in line
    assert "Traceback" not in err


def test_a_wrong_argument_in_a_process() -> None:
    done = bench("soak", "--minutes", "1", "--kills", "9")
    assert done.returncode == 2
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("clser-bench: ")]
    assert "--kills 9: in 60 s" in line
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_exit_3() -> None:
    done = bench("latency", "--set", "model.voice=nobody")
    assert done.returncode == 3
    assert done.stderr.startswith("clser-bench: model 'nobody' is unknown")


def test_help_tells_units() -> None:
    done = bench("capacity", "--help")
    assert done.returncode == 0
    assert "seconds" in done.stdout
