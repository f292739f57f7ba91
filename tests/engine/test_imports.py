"""What importing costs, each time in an interpreter of its own."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "tensorflow", "transformers", "scipy", "matplotlib")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules there are after it."""
    code = f"import sys, json; {statement}; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_engine_loads_no_runtime() -> None:
    loaded = loaded_by("import clser.engine.api")
    assert "numpy" in loaded
    assert loaded.isdisjoint({*HEAVY, "onnxruntime", "webrtcvad", "sounddevice"})


@pytest.mark.parametrize("module", ["records", "wire", "config", "errors"])
def test_importing_what_clients_see_loads_no_runtime(module: str) -> None:
    assert loaded_by(f"import clser.engine.{module}").isdisjoint({*HEAVY, "onnxruntime", "webrtcvad", "sounddevice"})


def test_a_worker_with_the_default_model_loads_no_torch() -> None:
    opening = (
        "from clser.engine.worker import warm_up; from clser.engine.backends import open_vad, open_voice; "
        "from clser.engine.config import Config; c = Config(); "
        "warm_up(open_vad(c.vad), open_voice(c.model.voice, c.pool.compute))"
    )
    loaded = loaded_by(opening)
    assert "onnxruntime" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_the_engine_is_quick() -> None:
    """Half a second is promised; a busy machine gets twice that, and three tries."""
    code = "import time; t = time.perf_counter(); import clser.engine.api; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(times) <= 1.0
