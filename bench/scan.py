"""What a selective scan costs in time and memory, against the sequential loop and against the length of the sound.

Each figure comes from a process of its own, so that the highest memory is that scan's.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from clser.bench.table import number

FRAMES_A_SECOND = 25
ROWS, CHANNELS, NUMBERS, HEAD = 1, 128, 16, 32
WAYS = ("sequential", "chunked", "dual")
REPEATS = 3


def measure(seconds: Sequence[int]) -> dict[str, object]:
    """Forward and backward through one layer's scan, best of `REPEATS`, and the memory it added at most."""
    rows = []
    for way in WAYS:
        for length_s in seconds:
            ran = subprocess.run(
                [sys.executable, "-m", "clser.bench.scan", way, str(length_s)],
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append(json.loads(ran.stdout))
            print(f"{way}, {length_s} s: {rows[-1]['both_ms']:.1f} ms", file=sys.stderr, flush=True)
    return {"rows": rows, "batch": ROWS, "channels": CHANNELS, "numbers": NUMBERS, "frames_a_second": FRAMES_A_SECOND}


def one(way: str, length_s: int) -> dict[str, object]:
    """One way at one length, in this process."""
    import torch  # noqa: PLC0415 - the other benchmarks do without

    from clser.models.layers import scan as scans  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps = length_s * FRAMES_A_SECOND
    x = torch.randn(ROWS, steps, CHANNELS)
    delta = torch.nn.functional.softplus(torch.randn(ROWS, steps, CHANNELS) - 2.0)
    into, out = torch.randn(2, ROWS, steps, NUMBERS)
    if way == "dual":
        heads = CHANNELS // HEAD
        given = scans.Steps(x.unflatten(2, (heads, HEAD)), delta[..., :heads], into, out)
        decay, state = -torch.rand(heads) * 4.0, torch.zeros(ROWS, heads, HEAD, NUMBERS)
    else:
        given = scans.Steps(x, delta, into, out)
        decay = -torch.arange(1, NUMBERS + 1).float().repeat(CHANNELS, 1)
        state = torch.zeros(ROWS, CHANNELS, NUMBERS)
    run = getattr(scans, way)
    forward, both = [], []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(REPEATS):
        leaves = scans.Steps(*(part.detach().requires_grad_() for part in given))
        began = time.perf_counter()
        answers, _ = run(leaves, decay, state)
        forward.append(time.perf_counter() - began)
        answers.sum().backward()
        both.append(time.perf_counter() - began)
    added_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {
        "way": way, "seconds": length_s, "forward_ms": 1e3 * min(forward), "both_ms": 1e3 * min(both), "added_mb": added_mb
    }  # fmt: skip


def table(line: Mapping[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{'':<12}{'seconds':>8}{'forward, ms':>14}{'and back, ms':>14}{'memory, MB':>12}"]
    for row in line["rows"]:
        cells = f"{number(row['forward_ms'], 1):>14}{number(row['both_ms'], 1):>14}{number(row['added_mb'], 0):>12}"
        lines.append(f"{row['way']:<12}{row['seconds']:>8}{cells}")
    return lines


if __name__ == "__main__":
    sys.stdout.write(json.dumps(one(sys.argv[1], int(sys.argv[2]))) + "\n")
