"""A trained system as one ONNX file which any runtime plays, with what an engine must know in its metadata (docs/models.md).

Letters: B rows, S samples, T frames, X numbers that tell of a speaker, H heads.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor

from clser.models.errors import FailedError
from clser.models.evaluate import softmax
from clser.models.int8 import to_int8
from clser.models.live import Live, Windowed, card, live
from clser.models.onnx_files import OPSET, describe, halve, player
from clser.models.saved import Trained

PARITY = 1e-4
HEARD_LOOSER = 300.0
SPEAKER, HEARD = "speaker_BX", "heard_BX"
"""Of a system that knows speakers: what is known of the row's, and what its utterance tells of him."""

Array = np.ndarray[Any, Any]


class Exported(NamedTuple):
    """What came of an export."""

    parity: float
    """The largest difference of a probability from torch's."""
    agreement: float | None
    """Share of answers on which the 8-bit file has the same label; None: it was not asked for."""
    size_bytes: int


def export(system: Any, path: Path, about: Trained, int8: bool = False) -> Exported:
    """Writes the file and plays it beside torch; one that answers otherwise is refused, and `path` left as it was.

    int8: its weights take a byte each; refused where the label does not stay the same nearly always.
    """
    was_training = system.training
    net = live(system.cpu().eval(), about.calibration).eval()
    said = card(system, about)
    partial = path.with_suffix(".partial.onnx")
    agreement = None
    try:
        _trace(net, partial, system.frame_samples)
        if not int8:  # the quantiser looks for weights in full
            model = onnx.load(str(partial))
            halve(model)
            onnx.save(model, str(partial))
        worst = parity(net, partial)
        if not worst <= PARITY:
            raise FailedError(
                f"{path}: the exported graph's probabilities are {worst:.1e} away from torch's, more than {PARITY:.0e}; "
                f"something in {about.system} depends on the length or the rows of what it was traced with"
            )
        if int8:
            agreement = to_int8(partial, said)
            said |= {"precision": "int8", "agreement": round(agreement, 4)}
        model = onnx.load(str(partial))
        describe(model, said)
        onnx.checker.check_model(model)
        onnx.save(model, str(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        system.train(was_training)
    return Exported(worst, agreement, path.stat().st_size)


def _trace(net: Live | Windowed, path: Path, frame_samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = 3 if isinstance(net, Live) else 25
    inputs, outputs = ["pcm_BS", "frames_B"], ["logits_BTH" if isinstance(net, Live) else "logits_B1H"]
    carried = []
    if isinstance(net, Live):
        carried = [*_nobody(net, 2), *(torch.zeros(2, *shape) for shape in net.shapes())]
        told = net.speaker_numbers > 0
        inputs += [*([SPEAKER] if told else []), *(f"state_{name}" for name in net.state_names())]
        outputs += [*([HEARD] if told else []), *(f"next_{name}" for name in net.state_names())]
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    axes["pcm_BS"][1] = "S"
    if isinstance(net, Live):
        axes["logits_BTH"][1] = "T"
    arguments = (torch.zeros(2, frames * frame_samples), torch.tensor([frames, frames - 1]), *carried)
    with warnings.catch_warnings():
        # The tracing exporter is called deprecated, and warns that a GRU's batch size is fixed, which the state's axis
        # undoes here; `parity` below plays other sizes than the traced one.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                net, arguments, str(path), input_names=inputs, output_names=outputs,
                dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            why = " ".join(str(error).split())[:300]
            raise FailedError(
                f"{path}: torch cannot write this system as ONNX ({why}); play it with model.backend=torch"
            ) from error


def _nobody(net: Live, rows: int) -> list[Tensor]:
    """What is known of speakers who were never heard, as an argument of the network; nothing where it takes none."""
    return [torch.zeros(rows, net.speaker_numbers)] if net.speaker_numbers else []


def parity(net: Live | Windowed, path: Path, seed: int = 0) -> float:
    """The largest difference of a probability between torch and the file, for rows of all lengths; exact ones carry on."""
    session = player(path)
    random = np.random.default_rng(seed)
    samples = net.fronts.ratios[0] * net.fronts.each[0].samples
    worst = 0.0
    differences = _of_live if isinstance(net, Live) else _of_windows
    for said, got in differences(net, session, random, samples):
        worst = max(worst, float(np.abs(said - got).max(initial=0.0)) if np.isfinite(got).all() else float("inf"))
    return worst


def _of_live(net: Live, session: Any, random: np.random.Generator, samples: int) -> Iterator[tuple[Array, Array]]:
    """Probabilities of both, row by row, over calls that carry the state; and what they heard of the speaker."""
    rows = 4
    known = [tensor.numpy() for tensor in _nobody(net, rows)]
    for table_BX in known:  # of the first nobody is known, of the others more and more
        table_BX[:] = np.arange(rows)[:, None] * random.standard_normal(table_BX.shape)
        table_BX[:, 0] = np.arange(rows)
    state = [torch.zeros(rows, *shape) for shape in net.shapes()]
    arrays = [tensor.numpy() for tensor in state]
    names = [value.name for value in session.get_inputs() if value.name.startswith("state_")]
    for frames in (5, 1, 3, 9):
        pcm = (0.1 * random.standard_normal((rows, frames * samples))).astype(np.float32)
        real = np.array([frames, max(0, frames - 1), 0 if frames < 9 else 2, frames], np.int64)
        with torch.no_grad():
            given = [torch.from_numpy(array) for array in (pcm, real, *known)]
            logits, *after = net(*given, *state)
        told = dict(zip([SPEAKER], known, strict=False))
        carried = dict(zip(names, arrays, strict=True))
        got, *played = session.run(None, {"pcm_BS": pcm, "frames_B": real, **told, **carried})
        if known:
            heard_BX, heard_by_file_BX = after.pop(0).numpy(), played.pop(0)
            # What is heard is averaged over utterances before it counts, and some of it is the shape of what hardly varies:
            # it may differ by more than the answers, which are compared with it above.
            scale_BX = HEARD_LOOSER * np.maximum(1.0, np.abs(heard_BX))
            yield heard_BX / scale_BX, heard_by_file_BX / scale_BX
        state, arrays = after, played
        for row, count in enumerate(real):
            yield softmax(logits[row, :count].numpy()), softmax(got[row, :count])


def _of_windows(
    net: Windowed, session: Any, random: np.random.Generator, samples: int
) -> Iterator[tuple[Array, Array]]:
    for lengths in ((40,), (7, 30, 12), (1, 2), (61, 60, 3, 20)):
        pcm = (0.1 * random.standard_normal((len(lengths), max(lengths) * samples))).astype(np.float32)
        real = np.array(lengths, np.int64)
        with torch.no_grad():
            logits = net(torch.from_numpy(pcm), torch.from_numpy(real)).numpy()
        (got,) = session.run(None, {"pcm_BS": pcm, "frames_B": real})
        yield softmax(logits), softmax(got)
