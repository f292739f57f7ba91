"""Ray that is not installed, not there, lost, or somebody else's. What its workers do is in test_pool_faults.py."""

import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import run
from workers import Place

from clser.engine.errors import FailedError, MissingError
from clser.engine.ray_pool import RayPool


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match=r"pip install 'clser-stream\[ray\]'"):
        Place(tmp_path, on="ray")


class FakeRay:
    """As much of Ray as joining it takes."""

    exceptions = SimpleNamespace(RayError=OSError)

    def __init__(self, joined: bool) -> None:
        self.joined = joined
        self.addresses: list[str] = []

    def is_initialized(self) -> bool:
        return self.joined

    def init(self, address: str, **_: object) -> None:
        self.joined = True
        self.addresses.append(address)

    def shutdown(self) -> None:
        self.joined = False


def with_ray(monkeypatch: pytest.MonkeyPatch, folder: Path, joined: bool) -> tuple[RayPool, FakeRay]:
    ray = FakeRay(joined)
    monkeypatch.setattr("clser.engine.ray_pool.import_ray", lambda: ray)
    monkeypatch.setattr("clser.engine.ray_pool._keep_off_stdout", lambda: None)
    pool = Place(folder, on="ray", address="auto").pool
    assert isinstance(pool, RayPool)
    return pool, ray


def test_a_ray_that_was_lost_is_joined_again_and_left_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, ray = with_ray(monkeypatch, tmp_path, joined=False)
    pool._join()
    pool._join()
    assert ray.addresses == ["auto"]
    ray.joined = False
    pool._join()
    assert ray.addresses == ["auto", "auto"]
    run(pool.stop())
    assert not ray.joined


def test_a_programs_own_ray_is_neither_left_nor_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, ray = with_ray(monkeypatch, tmp_path, joined=True)
    pool._join()
    run(pool.stop())
    assert ray.joined
    ray.joined = False
    with pytest.raises(FailedError, match="that this program had joined is gone"):
        pool._join()
    assert ray.addresses == []


@pytest.mark.ray
@pytest.mark.parametrize("address", ["{0}", "ray://{0}"])
def test_a_ray_that_is_not_there_is_missing_at_once(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        place = Place(tmp_path, on="ray", address=address.format(f"127.0.0.1:{nobody.getsockname()[1]}"))
        with pytest.raises(MissingError, match="Ray cannot be reached there"):
            run(place.pool.start(place.news))
        run(place.pool.stop())
