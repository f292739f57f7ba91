"""`clser-models adapt`: a model fitted to a few recordings of somebody else's speech, as a small file of differences."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.clients.commands.lint import asked_classes
from clser.clients.commands.systems import add_zoo, need_torch
from clser.engine.errors import GivenError, MissingError
from clser.engine.shipped import installed, model_path
from clser.models import delta
from clser.models.data.clips import Clip
from clser.models.data.manifests import read_manifest

NAME = "adapt"
HELP = "fit a model to a few labelled recordings, and to unlabelled ones, in seconds"


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument(
        "--model", required=True, metavar="NAME|PATH",
        help="a shipped model, a trained folder, or its .safetensors",
    )  # fmt: skip
    action.add_argument("--manifest", type=Path, metavar="CSV", help="labelled recordings: file, emotion, speaker, ...")
    action.add_argument("--audio", type=Path, metavar="DIR", help="folder that the manifests' paths are relative to")
    many = action.add_mutually_exclusive_group()
    many.add_argument("--shots", type=int, metavar="K", help="fit to K recordings of each class")
    many.add_argument("--share", type=float, metavar="X", help="fit to this share of each class's recordings, as 0.2")
    many.add_argument("--speakers", type=float, metavar="X", help="fit to all recordings of this share of the speakers")
    action.add_argument(
        "--unlabelled",
        type=Path,
        metavar="CSV",
        help="more speech of the same kind: file, and speaker, ...; labels are not read",
    )
    action.add_argument("--classes", metavar="A,B,C", help="recordings of these emotions alone")
    action.add_argument(
        "--part", choices=("answer", "all"), default="answer",
        help="answer: the layers that name the classes (default); all: every weight, for a hundred recordings and more",
    )  # fmt: skip
    action.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="PATH",
        help="the file to write, a .safetensors; a delta that is there is replaced",
    )
    action.add_argument("--seed", type=int, default=0, metavar="N", help="which recordings are taken (default: 0)")
    add_zoo(action)
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    need_torch()
    _check(given)
    began = time.perf_counter()
    choose = import_module("clser.models.shots")
    base = _base(given.model)
    clips = _labelled(given)
    unlabelled = _unlabelled(given)
    drawn = choose.draw(clips, shots=given.shots, share=given.share, speakers=given.speakers, seed=given.seed)
    shots, tested = [clips[n] for n in drawn.shots], [clips[n] for n in drawn.tested]
    _tell(f"{len(shots)} clips to fit to{_each(shots)}, {len(unlabelled)} unlabelled, {len(tested)} to test on")
    system, about = import_module("clser.models.saved").load(base, given.zoo)
    adapt, deltas = import_module("clser.models.adapt"), import_module("clser.models.deltas")
    asked = adapt.Adapting(part=given.part)
    changed, told = adapt.adapted(system, about, shots, asked, unlabelled, seed=given.seed)
    said, kept = deltas.delta_of(
        system, about, changed, told, shots=shots, unlabelled=unlabelled, name=given.out.stem, seed=given.seed
    )
    deltas.save(given.out, said, kept)
    took_s = time.perf_counter() - began
    found: dict[str, Any] = {
        "out": str(given.out), "bytes": given.out.stat().st_size, "base": said.base, "digest": said.digest,
        "shots": said.shots, "unlabelled": said.unlabelled, "changed": sorted(kept), "took_s": round(took_s, 2),
        "tested": len(tested), "speakers_apart": drawn.apart,
        "before": _uar(system, about, tested), "after": _uar(changed, told, tested),
    }  # fmt: skip
    print(json.dumps(found) if given.json else "\n".join(lines(found)))
    return 0


def lines(found: Mapping[str, Any]) -> list[str]:
    """For people."""
    out = [f"{found['out']}: {found['bytes'] / 1000:.0f} kB for {found['base']}, in {found['took_s']:.1f} s"]
    if found["before"] is not None:
        whose = (
            "of other speakers" if found["speakers_apart"] else "(perhaps of the same speakers: strangers gain less)"
        )
        out.append(
            f"UAR on {found['tested']} other recordings {whose}: {100 * found['before']:.1f} % before, {100 * found['after']:.1f} % after"
        )
    whole = Path(found["out"]).resolve()  # the engine may run in another folder
    out.append(f"play it: clser-stream --set model.delta={whole}; or load it into a running engine:")
    out.append(f"clser-watch ask load delta={whole}")
    return out


def _check(given: argparse.Namespace) -> None:
    if given.out.suffix != ".safetensors":
        raise GivenError(
            f"--out {given.out}: the file's name must end in .safetensors, which is how the engine knows it"
        )
    if given.out.exists() and not _is_delta(given.out):
        raise GivenError(f"--out {given.out}: something else than a delta is there; give another path")
    if given.manifest is None and given.unlabelled is None:
        raise GivenError("give --manifest CSV with labelled recordings, or --unlabelled CSV, or both")
    counted = [one for one in (given.shots, given.share, given.speakers) if one is not None]
    if given.manifest is not None and not counted:
        raise GivenError("--manifest: say how much of it to fit to, with --shots K, --share X or --speakers X")
    if given.manifest is None and counted:
        raise GivenError("--shots, --share and --speakers are of labelled recordings: give --manifest CSV too")
    if given.shots is not None and given.shots < 1:
        raise GivenError(f"--shots {given.shots}: give 1 or more")
    for option, share in (("--share", given.share), ("--speakers", given.speakers)):
        if share is not None and not 0 < share <= 1:
            raise GivenError(f"{option} {share}: give a share between 0 and 1, such as 0.2")


def _is_delta(path: Path) -> bool:
    try:
        delta.read(path)
    except (GivenError, MissingError):
        return False
    return True


def _labelled(given: argparse.Namespace) -> list[Clip]:
    if given.manifest is None:
        return []
    clips = read_manifest(given.manifest, given.audio)
    wanted = asked_classes(given.classes)
    clips = [clip for clip in clips if not wanted or clip.emotion in wanted]
    if not clips:
        raise GivenError(f"--classes {given.classes}: no clip has one of these; see the manifest's column `emotion`")
    return clips


def _unlabelled(given: argparse.Namespace) -> list[Clip]:
    return read_manifest(given.unlabelled, given.audio, labelled=False) if given.unlabelled else []


def _base(model: str) -> Path:
    """The weights behind a name or a path."""
    if model in installed():
        return model_path(model).with_suffix(".safetensors")
    path = model_path(model)
    if path.suffix == ".onnx":
        raise GivenError(f"--model {model}: only what training left can be adapted, not an ONNX file; give the folder")
    return path


def _uar(system: Any, about: Any, tested: Sequence[Clip]) -> float | None:
    """Over the classes that occur there; None where nothing is left to test on."""
    if not tested:
        return None
    logits_NH, _ = import_module("clser.models.judged").logits(system, about, tested, words=bool(system.words))
    places = sorted({about.heads.index(clip.emotion) for clip in tested})
    one: dict[str, Any] = import_module("clser.models.measures").one(logits_NH, tested, about.heads, places)
    return float(one["uar"])


def _each(shots: Sequence[Clip]) -> str:
    counts: dict[str, int] = {}
    for clip in shots:
        counts[clip.emotion] = counts.get(clip.emotion, 0) + 1
    return f" ({', '.join(f'{name} {many}' for name, many in sorted(counts.items()))})" if counts else ""


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
