"""docs/systems.md: every system of the zoo has its section, and its plans are plans."""

from pathlib import Path

import msgspec
import pytest
import yaml

pytest.importorskip("torch")

from clser.models import systems
from clser.models.plan import from_values

pytestmark = pytest.mark.torch
PAGE = Path(__file__).parents[2] / "docs" / "systems.md"
ELSEWHERE = {"voice"}
"""The default, which docs/models.md and its card describe."""


def test_every_system_has_a_section():
    titles = "\n".join(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## "))
    assert [name for name in systems.systems() if f"`{name}`" not in titles and name not in ELSEWHERE] == []


def test_its_plans_are_plans_of_systems_with_these_settings():
    texts = [part.split("```")[0] for part in PAGE.read_text(encoding="utf-8").split("```yaml\n")[1:]]
    plans = [from_values(values, "docs/systems.md") for values in map(yaml.safe_load, texts) if "system" in values]
    assert {"acmf_net", "biformer", "hump_cat", "mpaf_net"} <= {plan.system for plan in plans}
    for plan in plans:
        msgspec.convert(plan.settings, systems.system_file(plan.system).Config)
