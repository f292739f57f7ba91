"""The wheel, installed where nothing else is, plays the demo: nothing was forgotten in the list of packages or their data."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UNWANTED = ("torch", "pytest", "scipy")
FOUND = f"import importlib.util as u; print([name for name in {UNWANTED} if u.find_spec(name)])"


def sh(*command: "str | Path", cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_wheel_alone_plays_the_demo(tmp_path: Path) -> None:
    # from a copy: setuptools leaves a build folder behind, whose stale files would end up in the next wheel
    source = shutil.copytree(
        ROOT,
        tmp_path / "source",
        symlinks=True,
        ignore=shutil.ignore_patterns(".git", ".venv", "build", "runs", ".*cache"),
    )
    sh(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("clser_stream-*.whl")
    # this pip installs into it: a new one would only take time, as would compiling what nobody imports
    venv.create(tmp_path / "env")
    python = tmp_path / "env/bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    sh(*pip, "install", "--quiet", "--no-compile", wheel, cwd=tmp_path)
    assert sh(python, "-c", FOUND, cwd=tmp_path).strip() == "[]"
    lines = sh(
        tmp_path / "env/bin/clser-stream", "--demo", "--pace", "fast", "--json", "--bind", "", cwd=tmp_path
    ).splitlines()
    finals = [result for result in map(json.loads, lines) if result["stage"] == "final"]
    assert len(finals) == 8
    assert {result["model"]["name"] for result in finals} == {"voice"}
