"""`clser-models`: which models are here, what they say of themselves, and whether this machine can run them."""

import argparse
import json
import sys
from importlib import import_module
from typing import Any

import msgspec

from clser.clients.commands import doctor
from clser.clients.commands.shell import Parser, parser, run, set_up_log
from clser.engine.errors import ClserError, MissingError
from clser.engine.shipped import installed, model_path

NOT_WORKING = 3


def _parser() -> Parser:
    made = parser("clser-models", "The models that are here. Nothing is downloaded.")
    inner = made.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    for name, what in (
        ("list", "the installed models: name, digest, heads, size"),
        ("show", "what a model says of itself"),
        ("card", "a model's card: what it was trained on, how well it does, what it must not be used for"),
        ("doctor", "what is installed, what is missing, and how to get it (exit 3 if the default path does not work)"),
    ):
        action = inner.add_parser(name, help=what, description=what, allow_abbrev=False)
        if name in ("show", "card"):
            action.add_argument("name", metavar="NAME", help="a name of `clser-models list`, or an .onnx file")
        if name != "card":
            action.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return made


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
    if given.json:
        print(json.dumps(models))
        return 0
    for model in models:
        heads = ",".join(model["heads"])
        print(f"{model['name']:<16}  {model['digest']}  {model['bytes'] / 1e6:6.1f} MB  {heads}")
    return 0


def _show(given: argparse.Namespace) -> int:
    model = about(given.name)
    if given.json:
        print(json.dumps(model))
        return 0
    for key, value in model.items():
        print(f"{key:<15}  {', '.join(value) if isinstance(value, list | tuple) else value}")
    return 0


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


ACTIONS = {"list": _list, "show": _show, "card": _card, "doctor": _doctor}


def _main() -> int:
    given = _parser().parse_args()
    set_up_log(given)
    return ACTIONS[given.action](given)


def main() -> None:
    run(_main)


if __name__ == "__main__":
    sys.argv[0] = "clser-models"
    main()
