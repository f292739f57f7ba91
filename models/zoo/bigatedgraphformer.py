"""BiGatedGraphFormer (BDCC 9(11):285): BiGraphFormer with a gate for each feature beside each graph.

    the two graphs' nodes -> mean            \\
                                               sum of both, for each graph -> MLP -> logits
    the two graphs' nodes -> gate of features /

What it shares with its sisters stands in `clser.models.encoders.bimodal`, its fusion in `clser.models.layers.graph`.
"""

from collections.abc import Sequence

from clser.models.encoders.bimodal import Bimodal, Settings
from clser.models.systems import About

ABOUT = About("BiGatedGraphFormer: attention across, graphs, gates", "BDCC 9(11):285, 2025; code LEYA-HSE/BiBiER")


class Config(Settings, frozen=True, forbid_unknown_fields=True):
    """Every choice, as the family has them."""


def build(config: Config, heads: Sequence[str]) -> Bimodal:
    """The system, untrained."""
    return Bimodal(config, heads, "bigatedgraphformer")
