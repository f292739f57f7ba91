"""The command, through real processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

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


def last_line(done: subprocess.CompletedProcess[str], name: str) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"clser-bench {name} ")
    line: dict[str, Any] = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert set(line) >= CARD
    assert line["bench"] == name
    assert len(line["model"]["digest"]) == len(line["config"]["digest"]) == 16
    return line


@pytest.mark.slow
def test_latency_of_three_phrases(tmp_path: Path) -> None:
    done = bench("latency", "--utterances", "3", "--json", str(tmp_path / "line.json"), "--set", "segment.end_ms=200")
    line = last_line(done, "latency")
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
def test_capacity_of_two_streams() -> None:
    line = last_line(bench("capacity", "--streams", "2", "--seconds", "6", "--duty", "0.7"), "capacity")
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
def test_a_soak_with_a_kill(tmp_path: Path) -> None:
    arguments = ("--minutes", "0.12", "--streams", "2", "--duty", "0.6", "--kills", "1", "--plot", str(tmp_path))
    line = last_line(bench("soak", *arguments), "soak")
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


def test_vad_on_the_bundled_clip() -> None:
    line = last_line(bench("vad", "--minutes", "3"), "vad")
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
def test_a_wrong_argument_is_one_line_and_exit_2(arguments: tuple[str, ...], said: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("clser-bench: ")]
    assert said in line
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_exit_3() -> None:
    done = bench("latency", "--set", "model.voice=nobody")
    assert done.returncode == 3
    assert done.stderr.startswith("clser-bench: model 'nobody' is unknown")


def test_help_tells_units() -> None:
    done = bench("capacity", "--help")
    assert done.returncode == 0
    assert "seconds" in done.stdout
