"""BiFormer (BDCC 9(11):285): an audio Mamba and a text Mamba whose steps ask one another, or either alone, or all weighed.

    voice -> audio Mamba -> 256 \\
                                  95 steps each -> 5 layers x 2 directions -> means -> MLP -> logits
    words -> text Mamba -> 1024 /

What it shares with its sisters stands in `clser.models.encoders.bimodal`, its fusion in `clser.models.layers.crossing`.
"""

from collections.abc import Sequence

from clser.models.encoders.bimodal import Bimodal, Settings
from clser.models.systems import About

ABOUT = About("BiFormer: audio and text Mamba with attention across", "BDCC 9(11):285, 2025; code LEYA-HSE/BiBiER")


class Config(Settings, frozen=True, forbid_unknown_fields=True):
    """Every choice, as the family has them."""


def build(config: Config, heads: Sequence[str]) -> Bimodal:
    """The system, untrained."""
    return Bimodal(config, heads, "biformer")
