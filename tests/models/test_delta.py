"""The file of differences: what is written is read, what is added is the same everywhere, and what is no delta says so."""

import json
import os

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from clser.models import delta
from clser.models.delta import Changed, Delta
from clser.models.errors import GivenError, MissingError

KEPT = {"leave.bias": np.array([0.5, -0.25], np.float16), "leave.weight": np.ones((2, 3), np.float16)}
ABOUT = delta.with_digest(
    Delta(
        "0123456789abcdef", "tiny", ("anger", "sadness"), temperature=2.0, offsets=(0.5, 0.0), abstain_below=0.3,
        changed={name: Changed("x") for name in KEPT}, shots={"anger": 5}, corpora=("one",),
    ),
    KEPT,
)  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    path = delta.write(tmp_path / "deeper" / "d.safetensors", ABOUT, KEPT)
    about, kept = delta.read(path)
    assert about == ABOUT
    assert kept.keys() == KEPT.keys()
    for name, part in KEPT.items():
        assert np.array_equal(kept[name], part)
    assert path.stat().st_size < 2000


def test_others_read_it_too(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    kept = numpy.load_file(delta.write(tmp_path / "d.safetensors", ABOUT, KEPT))
    assert {name: part.shape for name, part in kept.items()} == {name: part.shape for name, part in KEPT.items()}


def test_weights_kept_in_half_stay_such():
    before = np.array([1.5, 0.1], np.float32).astype(np.float16).astype(np.float32)
    kept = delta.difference(before, before + 0.0123)
    after = delta.applied(before, kept)
    assert np.array_equal(after, delta.half(after))
    full = np.array([1.5, 0.1], np.float32)
    assert np.allclose(delta.applied(full, delta.difference(full, full + 0.0123)), full + 0.0123, atol=1e-5)


def test_recalibrating_is_a_stretch_and_a_shift():
    about = msgspec.structs.replace(ABOUT, base_temperature=0.5, base_offsets=(1.0, -1.0))
    plain = np.array([[0.3, -2.0]])
    before = plain / 0.5 + np.array([1.0, -1.0])
    assert np.allclose(about.calibrated(before), plain / 2.0 + np.array([0.5, 0.0]), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(some.binary(max_size=400))
def test_no_bytes_break_it(data):
    with pytest.raises(GivenError, match="no delta of format"):
        delta.parsed(data, "it")


@settings(max_examples=60, deadline=None)
@given(some.data())
def test_a_damaged_file_is_refused(tmp_path_factory, data):
    whole = delta.write(tmp_path_factory.mktemp("d") / "d.safetensors", ABOUT, KEPT).read_bytes()
    at = data.draw(some.integers(0, len(whole) - 1))
    broken = bytearray(whole)
    broken[at] ^= data.draw(some.integers(1, 255))
    try:
        about, kept = delta.parsed(bytes(broken), "it")
    except GivenError:
        return
    # What else a byte may change is what it is called, or who made it: never what it does.
    assert (about.base, about.temperature, about.offsets) == (ABOUT.base, ABOUT.temperature, ABOUT.offsets)
    assert all(np.array_equal(kept[name], part) for name, part in KEPT.items())


@pytest.mark.parametrize(
    "change",
    [{"heads": ()}, {"temperature": 0.0}, {"offsets": (1.0,)}, {"temperature": -1.0}, {"changed": {}}, {"kind": "other"}, {"format": 9}],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(tmp_path, change):
    about = delta.with_digest(msgspec.structs.replace(ABOUT, **change), KEPT)
    with pytest.raises(GivenError, match="no delta of format"):
        delta.read(delta.write(tmp_path / "d.safetensors", about, KEPT))


def test_a_header_may_not_point_elsewhere():
    header = {
        "__metadata__": {"clser": msgspec.json.encode(ABOUT).decode()},
        "leave.bias": {"dtype": "F16", "shape": [2], "data_offsets": [-4, 0]},
        "leave.weight": {"dtype": "F16", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 12]},
    }
    head = json.dumps(header).encode()
    with pytest.raises(GivenError, match="no delta"):
        delta.parsed(len(head).to_bytes(8, "little") + head + bytes(64), "it")


def test_files_that_can_be_none_are_not_read(tmp_path):
    with pytest.raises(GivenError, match=r"ends in \.safetensors"):
        delta.read_bytes(tmp_path / "passwd")
    with pytest.raises(MissingError, match="no such file"):
        delta.read_bytes(tmp_path / "d.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(MissingError, match="no such file"):
        delta.read_bytes(tmp_path / "pipe.safetensors")
    with (tmp_path / "large.safetensors").open("wb") as large:
        large.truncate(delta.MOST_BYTES + 1)
    with pytest.raises(GivenError, match="64 MB"):
        delta.read_bytes(tmp_path / "large.safetensors")
