import re
from pathlib import Path

import msgspec
import pytest

from clser.engine import config
from clser.engine.config import Config, from_values, load
from clser.engine.errors import GivenError


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", config.names())
def test_every_shipped_config_loads(name: str) -> None:
    assert isinstance(load(name), Config)


def test_the_shipped_configs_are_there_and_live_is_the_defaults() -> None:
    assert {"live", "edge", "gpu"} <= set(config.names())
    assert load("live", ["asr.recogniser=off"]) == Config()
    assert load("edge") != Config()


def test_a_file_holds_differences_only(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, "segment:\n  end_ms: 250\n"))
    assert loaded.segment.end_ms == 250
    assert msgspec.structs.replace(loaded, segment=Config().segment) == Config()


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing\n")) == Config()


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "segment:\n  end_ms: 250\n  start_ms: 64\n")
    loaded = load(path, ["segment.end_ms=200", "bus.publish=", "pool.compute=cuda:1", "fuse.abstain_below=0.4"])
    assert (loaded.segment.end_ms, loaded.segment.start_ms) == (200, 64)
    assert (loaded.bus.publish, loaded.pool.compute, loaded.fuse.abstain_below) == ("", "cuda:1", 0.4)


def test_the_config_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Config().segment.end_ms = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("segmnt: {}", "there is no segmnt; did you mean segment?"),
        ("segment: {end_mss: 3}", "there is no segment.end_mss; did you mean segment.end_ms?"),
        ("segment: {zzzz: 3}", "there is no segment.zzzz; there are segment.start_ms, "),
        ("segment: {end_ms: soon}", r"segment.end_ms: Expected `int`, got `str`"),
        ("segment: {end_ms: -1}", r"segment.end_ms: Expected `int` >= 0"),
        ("segment: {end_ms: 1.5}", r"segment.end_ms: "),
        ("vad: {on: 1.5}", r"vad.on: "),
        ("vad: {network: magic}", r"vad.network: "),
        ("pool: {workers: 0}", r"pool.workers: "),
        ("segment: 5", r"segment: Expected `object`, got `int`"),
        ("- a\n- b", "the top must hold sections"),
        ("just words", "the top must hold sections"),
        ("a: [1,", "it is not YAML"),
        ("segment: {longest_ms: 1000}", "longest_ms is 1000: make it at least 2 x carry_ms"),
        ("segment: {longest_ms: 10}", "segment.longest_ms: "),
        ("privacy: {keep_sound: kept}", "privacy.purpose is empty"),
        ("privacy: {keep_results: x.jsonl, purpose: '  '}", "privacy.purpose is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_path(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(GivenError) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override", ["segment.end_ms", "end_ms=3", "=3", "segment.end_ms=[1", "segment.end_ms=", "nosuch.key=1"]
)
def test_overrides_that_make_no_sense_are_refused(override: str) -> None:
    with pytest.raises(GivenError):
        load("live", [override])


def test_an_unknown_name_lists_the_ones_there_are() -> None:
    with pytest.raises(GivenError, match=re.escape(", ".join(config.names()))):
        load("nosuch")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GivenError, match=r"absent.yaml: No such file"):
        load(tmp_path / "absent.yaml")


def test_keeping_with_a_purpose_is_allowed() -> None:
    kept = from_values({"privacy": {"keep_sound": "kept", "purpose": "a study"}}, "test")
    assert kept.privacy.keeps
    assert not Config().privacy.keeps
