"""`clser-models pull`: a pretrained encoder or a recogniser from the hub. The one thing here that ever downloads."""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.engine.backends import whisper
from clser.engine.errors import GivenError

NAME = "pull"
HELP = "download a pretrained encoder or a recogniser from the hub; nothing else here downloads anything"


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument(
        "name",
        metavar="NAME",
        help="OWNER/NAME on the hub, such as facebook/hubert-base-ls960; or whisper:SIZE, such as whisper:base",
    )
    action.add_argument("--folder", type=Path, metavar="DIR", help="put it there (default: the hub's own cache)")
    action.add_argument("--revision", metavar="R", help="a branch, tag or commit (default: the newest)")
    action.add_argument("--with-code", action="store_true", help="its Python files too; they are not run")
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    pull = import_module("clser.models.encoders.pull").pull
    name = repository(given.name)
    path = pull(name, given.folder, _tell, given.revision, given.with_code)
    print(json.dumps({"name": name, "folder": str(path)}) if given.json else path)
    return 0


def repository(name: str) -> str:
    """OWNER/NAME on the hub, of a recogniser's size as well."""
    kind, _, size = name.partition(":")
    if kind != "whisper":
        return name
    if size in whisper.NAMES:
        return whisper.OTHERS.get(size, f"Systran/faster-whisper-{size}")
    if size.count("/") == 1:
        return size
    raise GivenError(f"{name!r}: there is no such size; give whisper: and one of {', '.join(whisper.NAMES)}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
