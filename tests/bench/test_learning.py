"""The benchmarks of what is trained: what they count, on the smallest case."""

import pytest

pytest.importorskip("torch")

from clser.bench import cost, scan

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("way", scan.WAYS)
def test_a_scan_is_timed_there_and_back(way):
    row = scan.one(way, 1)
    assert 0.0 < row["forward_ms"] <= row["both_ms"]
    assert row["seconds"] == 1
    line = {"rows": [row]}
    assert len(scan.table(line)) == 2


@pytest.mark.parametrize("frame_samples", [640, 3200, 1000])
def test_packets_of_100_ms_bring_every_whole_frame_once(frame_samples):
    calls = list(cost._calls(frame_samples))
    assert sum(frames for _, frames in calls) == int(cost.SECONDS * 16_000) // frame_samples
    assert [first for first, _ in calls] == [True] + [False] * (len(calls) - 1)


def test_a_shipped_model_and_the_fronts_have_a_price(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.5)
    monkeypatch.setattr(cost, "FRONTS", {"logmel": None})
    line = cost.measure(["voice"], (1, 2))
    (row,) = line["rows"]
    assert set(row["ms_per_100_ms"]) == {"1", "2"}
    assert row["rtf"]["1"] == row["ms_per_100_ms"]["1"] / 100
    assert row["state_bytes"] > 1000
    assert [each["name"] for each in line["fronts"]] == ["logmel"]
    assert len(cost.table(line)) == 4
