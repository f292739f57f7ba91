"""`both` on disk: weights to train on from, and one ONNX file that any runtime plays.

Letters: B rows, H heads of the voice, C published classes, X numbers of a text.

The ONNX file's inputs are `voice_BH`, `words_BC` (logits, calibrated), `vector_BX`, `words_there_B` and `suspect_B` (1.0 or
0.0), all of float32; its outputs `logits_BH` and `weights_B2`. The metadata property `clser` says what `CONTRACT`, both sides'
heads and the licence are.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from clser.models.both import Both, Config
from clser.models.both_live import CONTRACT, INPUTS, KIND, OUTPUTS
from clser.models.errors import GivenError, MissingError
from clser.models.evaluate import softmax
from clser.models.onnx_files import KEY, OPSET, player, put
from clser.models.saved import LICENCE, Calibration, digest_of

Array = np.ndarray[Any, Any]
PARITY = 1e-4
WEIGHTS, PLAYED = "both.safetensors", "both.onnx"


class About(Struct, frozen=True):
    """What the files say of themselves."""

    heads: tuple[str, ...]
    """Of the voice, and of the answer."""
    words_heads: tuple[str, ...]
    vector: int
    settings: Config = Config()
    trained_on: tuple[str, ...] = ()
    """Corpora of voices, collections of texts. They were paired by label: no text was said in the clip it stood beside."""
    calibration: Calibration = Calibration()
    """Of the held-out voices that it learnt from: what it is given is to be as calibrated."""
    words: str = ""
    """Digest of the file of the text model whose vector it reads: no other's will do."""
    seed: int = 0
    licence: str = LICENCE
    version: str = ""
    digest: str = ""
    """Of the weights."""
    name: str = KIND
    kind: str = KIND
    contract: int = CONTRACT


def save(folder: Path, net: Both, about: About) -> About:
    """Writes both files, in one go each; gives back what they say, with the weights' digest."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: part.detach().contiguous().clone() for name, part in net.state_dict().items()}
    about = msgspec.structs.replace(about, digest=digest_of(weights))
    partial = (folder / WEIGHTS).with_suffix(".partial")
    partial.touch()
    mode = partial.stat().st_mode
    save_file(weights, str(partial), {KEY: msgspec.json.encode(about).decode()})
    partial.chmod(mode)  # it would be its owner's alone, whatever the umask says
    partial.replace(folder / WEIGHTS)
    export(net, folder / PLAYED, about)
    return about


def load(path: Path) -> tuple[Both, About]:
    """The network in that file, in evaluation mode."""
    if not path.is_file():
        raise MissingError(f"{path}: there is no such file; give the {WEIGHTS} that training left")
    try:
        with safe_open(str(path), "pt") as file:
            said = (file.metadata() or {}).get(KEY, "{}")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        about = msgspec.json.decode(said, type=About)
    except (SafetensorError, OSError, msgspec.DecodeError) as error:
        raise GivenError(
            f"{path}: it holds no network for voice and words together ({error}); give a {WEIGHTS}"
        ) from error
    net = Both(about.settings, about.heads, about.words_heads, about.vector)
    net.load_state_dict(weights)
    return net.eval(), about


def export(net: Both, path: Path, about: About) -> float:
    """Writes the file and plays it beside torch; gives back the largest difference of a probability. One that answers
    otherwise is refused, and `path` left as it was."""
    was_training = net.training
    net.eval()
    try:
        said = json.loads(msgspec.json.encode(about))
        return put(path, lambda at: _trace(net, at), said, lambda at: parity(net, at), PARITY)
    finally:
        net.train(was_training)


def parity(net: Both, path: Path, seed: int = 0) -> float:
    """The largest difference of a probability, and of a weight, between torch and the file, for batches of all sizes."""
    session, random, worst = player(path), np.random.default_rng(seed), 0.0
    for rows in (1, 2, 7, 64):
        given = some(net, rows, random)
        with torch.no_grad():
            logits, shares = (part.numpy() for part in net(*map(torch.from_numpy, given)))
        got, told = session.run(None, dict(zip(INPUTS, given, strict=True)))
        worst = max(worst, float(np.abs(softmax(logits) - softmax(got)).max()), float(np.abs(shares - told).max()))
    return worst


def some(net: Both, rows: int, random: np.random.Generator) -> Sequence[Array]:
    """Made-up opinions, some without words and some mistrusted."""
    given = (
        3.0 * random.standard_normal((rows, len(net.heads))), 3.0 * random.standard_normal((rows, len(net.words_heads))),
        random.uniform(-1, 1, (rows, net.vector)), random.random(rows) < 0.7, random.random(rows) < 0.3,
    )  # fmt: skip
    return [part.astype(np.float32) for part in given]


def _trace(net: Both, path: Path) -> None:
    given = tuple(map(torch.from_numpy, some(net, 2, np.random.default_rng(1))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is called deprecated
        torch.onnx.export(
            net, given, str(path), input_names=list(INPUTS), output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "B"} for name in (*INPUTS, *OUTPUTS)}, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
