import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOPS = PROJECT["tool"]["setuptools"]["package-dir"]
SOURCES = sorted(path for folder in TOPS.values() for path in (ROOT / folder).rglob("*.py"))


def test_the_list_of_packages_is_the_folders_that_are_packages() -> None:
    found = set()
    for package, folder in TOPS.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(found)


def test_every_folder_of_modules_is_a_package() -> None:
    homeless = {path.parent for path in SOURCES if not (path.parent / "__init__.py").exists()}
    assert homeless == set()


def test_every_top_is_typed_and_linked_for_the_type_checker() -> None:
    for package, folder in TOPS.items():
        link = ROOT / ".typing" / package.replace(".", "/")
        assert link.resolve() == (ROOT / folder).resolve()
        assert not link.readlink().is_absolute()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_the_folders_by_their_bare_names(path: Path) -> None:
    bare = re.compile(rf"^\s*(from|import)\s+({'|'.join(TOPS.values())})\b", re.MULTILINE)
    assert not bare.search(path.read_text())


def test_commands_point_into_our_packages() -> None:
    for name, target in PROJECT["project"]["scripts"].items():
        assert name.startswith("clser-")
        module, _, function = target.partition(":")
        assert function
        assert module.rpartition(".")[0] in PROJECT["tool"]["setuptools"]["packages"]


def test_data_files_are_of_kinds_that_are_packed() -> None:
    """A file of another kind works in the checkout and is missing from the wheel."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for folder in TOPS.values():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts:
                assert any(path.match(pattern) for pattern in patterns), path


def test_the_base_install_asks_for_no_torch() -> None:
    needed = {re.split(r"[<>=\[ ;]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert "torch" not in needed
    for name in needed:
        metadata.version(name)  # and what it asks for is what this run has
