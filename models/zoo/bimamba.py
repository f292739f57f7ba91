"""BiMamba (BDCC 9(11):285): voice and words side by side, step by step, through Mamba layers.

    voice -> audio Mamba \\
                           95 steps each -> 1024 to 512 -> 4 Mamba layers -> means -> MLP -> logits
    words -> text Mamba  /

What it shares with its sisters stands in `clser.models.encoders.bimodal`, its fusion in `clser.models.layers.joining`.
"""

from collections.abc import Sequence

from clser.models.encoders.bimodal import Bimodal, Settings
from clser.models.systems import About

ABOUT = About("BiMamba: voice and words joined, then Mamba", "BDCC 9(11):285, 2025; code LEYA-HSE/BiBiER")


class Config(Settings, frozen=True, forbid_unknown_fields=True):
    """Every choice, as the family has them."""


def build(config: Config, heads: Sequence[str]) -> Bimodal:
    """The system, untrained."""
    return Bimodal(config, heads, "bimamba")
