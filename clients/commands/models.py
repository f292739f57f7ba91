"""`clser-models`: which models and systems are here, what they say of themselves, and what can be made of them."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from clser.clients.commands import doctor
from clser.clients.commands.shell import Parser, parser, run, set_up_log
from clser.clients.commands.systems import add_zoo
from clser.engine.errors import ClserError, MissingError
from clser.engine.shipped import installed, model_path, own

NOT_WORKING = 3
ELSEWHERE = ("train", "eval", "adapt", "manifest", "lint", "export", "pull", "generate")
"""Actions with a module of their own here, loaded when they are asked for: `add_parser(inner)` and `run(given)`."""


def _parser(action: str = "") -> Parser:
    """With the arguments of all actions; or, where one of this file is asked for, of these alone."""
    made = parser("clser-models", "The models and systems that are here. Nothing is downloaded but by `pull`.")
    inner = made.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    for name, what in (
        ("list", "the installed models, those in your own folder, and the systems that can be trained"),
        ("show", "what a model or a system says of itself, and what can be set"),
        ("card", "a model's card: what it was trained on, how well it does, what it must not be used for"),
        ("doctor", "what is installed, what is missing, and how to get it (exit 3 if the default path does not work)"),
    ):
        made_here = inner.add_parser(name, help=what, description=what, allow_abbrev=False)
        if name in ("show", "card"):
            made_here.add_argument(
                "name", metavar="NAME", help="a name of `clser-models list`, an .onnx file, or a trained folder"
            )
        if name in ("list", "show"):
            add_zoo(made_here)
        if name == "show":
            made_here.add_argument("--system", action="store_true", help="the system, where a model has that name too")
        if name != "card":
            made_here.add_argument("--json", action="store_true", help="one JSON document on standard output")
    if action not in ACTIONS:
        for module in _elsewhere().values():
            module.add_parser(inner)
    return made


def _elsewhere() -> dict[str, Any]:
    """The modules of the other actions."""
    return {name: import_module(f"clser.clients.commands.{name}") for name in ELSEWHERE}


def about(name: str) -> dict[str, Any]:
    """The card in the model's file, with where it lies and how large it is."""
    probe = import_module("clser.engine.backends.probe")  # by name, since it loads a runtime, which `card` does without
    card, path = probe.voice_card(name)
    return {**msgspec.to_builtins(card), "file": str(path), "bytes": path.stat().st_size}


def _list(given: argparse.Namespace) -> int:
    models = []
    for name in installed():
        try:
            models.append(about(name))
        except ClserError as error:  # one broken file does not hide the others
            print(f"clser-models: {error}", file=sys.stderr)
    systems = import_module("clser.clients.commands.systems")
    found = systems.listed(given.zoo) if systems.torch_is_here() else None
    yours = systems.owned()
    if given.json:
        print(json.dumps({"models": models, "own": yours, "systems": found}))
        return 0
    for model in models:
        heads = ",".join(model["heads"])
        print(f"{model['name']:<20}  {model['digest']}  {model['bytes'] / 1e6:6.1f} MB  {heads}")
    for model in yours:
        what = f"  {model['system']}" if model["system"] else ""
        print(
            f"{model['name']:<20}  {model['digest']:<16}  {model['bytes'] / 1e6:6.1f} MB  yours{what}, {model['file']}"
        )
    if found is None:
        print(systems.NEEDS_TORCH)
        return 0
    for system in found:
        takes = "+".join([*system["fronts"], *([f"words:{system['words']}"] if system["words"] else [])])
        print(
            f"{system['name']:<20}  {system['streams']:<8}  {system['parameters'] / 1e6:6.2f} M  {takes}  {system['title']}"
        )
    return 0


def _show(given: argparse.Namespace) -> int:
    said, lines = _said(given)
    print(json.dumps(said) if given.json else "\n".join(lines))
    return 0


def _said(given: argparse.Namespace) -> tuple[dict[str, Any], Sequence[str]]:
    """What there is to tell of a name or a path: as it is, and as lines."""
    systems = import_module("clser.clients.commands.systems")
    path = Path(given.name)
    if given.name in own() and not given.system and not path.exists():
        path = model_path(given.name)
    if path.is_dir() or path.suffix == ".safetensors":
        systems.need_torch()
        return (said := systems.trained(path)), _pairs(said)
    is_model = given.name in installed() or path.suffix == ".onnx"
    if given.system or (not is_model and systems.torch_is_here() and systems.exists(given.name, given.zoo)):
        systems.need_torch()
        return (said := systems.description(given.name, given.zoo)), systems.lines(said)
    if not is_model:
        others = "`clser-models list` names the systems" if systems.torch_is_here() else systems.NEEDS_TORCH
        raise MissingError(f"model {given.name!r} is unknown: installed are {', '.join(installed())}; {others}")
    return (said := about(given.name)), _pairs(said)


def _pairs(said: dict[str, Any]) -> list[str]:
    return [f"{key:<15}  {', '.join(map(str, v)) if isinstance(v, list | tuple) else v}" for key, v in said.items()]


def _card(given: argparse.Namespace) -> int:
    path = model_path(given.name).with_suffix(".md")
    if not path.is_file():
        raise MissingError(f"model {given.name!r} has no card: there is no {path}")
    print(path.read_text().rstrip())
    return 0


def _doctor(given: argparse.Namespace) -> int:
    found = doctor.findings()
    if given.json:
        print(json.dumps({"ok": doctor.healthy(found), "findings": msgspec.to_builtins(found)}))
    else:
        print("\n".join(doctor.lines(found)))
    return 0 if doctor.healthy(found) else NOT_WORKING


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "show": _show,
    "card": _card,
    "doctor": _doctor,
}


def _main() -> int:
    given = _parser(sys.argv[1] if len(sys.argv) > 1 else "").parse_args()
    set_up_log(given)
    if given.action in ACTIONS:
        return ACTIONS[given.action](given)
    ended: int = _elsewhere()[given.action].run(given)
    return ended


def main() -> None:
    run(_main)


if __name__ == "__main__":
    sys.argv[0] = "clser-models"
    main()
