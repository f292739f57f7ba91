"""Workers as the pipeline sees them: a `Pool`, which is asked for work and tells its `Listener` how it goes.

Where the workers are is the pool's business: processes of this machine (local_pool.py), or actors of Ray (ray_pool.py).
"""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, Protocol, cast

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.backends.devices import devices
from clser.engine.clock import Clock
from clser.engine.errors import ClserError
from clser.engine.records import Samples
from clser.engine.worker import AnyConfig, WorkerConfig


class PoolConfig(Struct, frozen=True, forbid_unknown_fields=True):
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """At least as many as there are devices in `compute`."""
    compute: str = "cpu"
    """`cpu`, `cuda:N`, or several, dealt to the workers in turn: `cuda:0,cuda:1`."""
    precision: Literal["full", "half"] = "full"
    """`half` needs model.backend=torch: float16 on a GPU, bfloat16 on the CPU."""
    on: Literal["local", "ray"] = "local"
    """Processes of this machine, or actors of Ray."""
    address: str = ""
    """Ray's: empty starts one on this machine; else `auto`, HOST:PORT or ray://HOST:PORT."""
    start_s: Annotated[float, Meta(gt=0)] = 60.0
    """A worker that is not ready by then is given up."""
    silent_s: Annotated[float, Meta(gt=0)] = 10.0
    """A worker that says nothing for so long hangs, and is killed. While it computes it is silent: take more than the slowest batch."""
    restarts: Annotated[int, Meta(ge=0)] = 5
    restart_window_s: Annotated[float, Meta(gt=0)] = 60.0
    """More than `restarts` in so long, and the engine ends. A device that breaks twice in so long is left for the CPU."""


class Listener(Protocol):
    """What a pool tells its owner. `worker` counts from 0."""

    def answered(self, worker: int, answer: jobs.Answer, numbers: NDArray[np.float32]) -> None: ...
    def lost(self, worker: int, why: str) -> None:
        """Its batches will not be answered and its slots are gone."""

    def fell_back(self, worker: int, why: str) -> None:
        """Its device broke: from now on it computes on the CPU. `back` follows."""

    def back(self, worker: int) -> None: ...
    def failed(self, error: ClserError) -> None:
        """It will not come back."""


class Pool(Protocol):
    async def start(self, listener: Listener) -> jobs.AnyReady:
        """Return when every worker has warmed up."""

    @property
    def workers(self) -> int: ...
    @property
    def pids(self) -> list[int]:
        """Of the workers on this machine."""

    def submit(self, worker: int, batch: jobs.Batch, pcm: Samples) -> None:
        """Hand a batch to a worker that is up. At most one a lane may be under way."""

    async def load(self, delta: bytes) -> jobs.VoiceCard:
        """Have every worker answer with this delta upon its model (empty: with none), those too that are started later, and
        return what the model then says of itself. An error of the tree where one cannot: then nothing has changed."""

    async def stop(self) -> None: ...


def open_pool(config: PoolConfig, worker: AnyConfig, runtime: Path, clock: Clock) -> Pool:
    """The pool that `config` asks for, not yet started. `runtime` is a folder for its sockets."""
    named = devices(config.compute)
    config = msgspec.structs.replace(config, workers=max(config.workers, len(named)))
    if isinstance(worker, WorkerConfig):
        worker = msgspec.structs.replace(worker, precision=config.precision)
    module = import_module(f"clser.engine.{config.on}_pool")  # Ray's only where it is wanted
    return cast(Pool, module.open_pool(config, worker, named, runtime, clock))
