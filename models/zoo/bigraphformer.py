"""BiGraphFormer (BDCC 9(11):285): BiFormer's layers across, then graphs over what is left of voice and words.

    voice -> audio Mamba \\                               means over time     -> graph of 2 nodes \\
                           5 layers across, 95 steps ->                                            -> MLP -> logits
    words -> text Mamba  /                               means over features -> graph of 2 nodes /

What it shares with its sisters stands in `clser.models.encoders.bimodal`, its fusion in `clser.models.layers.graph`.
"""

from collections.abc import Sequence

from clser.models.encoders.bimodal import Bimodal, Settings
from clser.models.systems import About

ABOUT = About("BiGraphFormer: attention across, then graphs", "BDCC 9(11):285, 2025; code LEYA-HSE/BiBiER")


class Config(Settings, frozen=True, forbid_unknown_fields=True):
    """Every choice, as the family has them."""


def build(config: Config, heads: Sequence[str]) -> Bimodal:
    """The system, untrained."""
    return Bimodal(config, heads, "bigraphformer")
