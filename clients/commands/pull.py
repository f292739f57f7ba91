"""`clser-models pull`: a pretrained encoder from the hub. The one thing here that ever downloads."""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.engine.errors import MissingError

NAME = "pull"
HELP = "download a pretrained encoder from the hub; nothing else here downloads anything"


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument("name", metavar="NAME", help="OWNER/NAME on the hub, such as facebook/hubert-base-ls960")
    action.add_argument("--folder", type=Path, metavar="DIR", help="put it there (default: the hub's own cache)")
    action.add_argument("--revision", metavar="R", help="a branch, tag or commit (default: the newest)")
    action.add_argument("--with-code", action="store_true", help="its Python files too; they are not run")
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    try:
        pull = import_module("clser.models.encoders.pull").pull
    except ModuleNotFoundError as error:
        raise MissingError(f"pulling encoders needs {error.name}: pip install 'clser-stream[train]'") from error
    path = pull(given.name, given.folder, _tell, given.revision, given.with_code)
    print(json.dumps({"name": given.name, "folder": str(path)}) if given.json else path)
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
