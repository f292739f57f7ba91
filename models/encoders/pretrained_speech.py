"""Pretrained speech encoders: HuBERT, ExHuBERT, wav2vec2, WavLM and Whisper, from a folder or the hub's local cache.

Letters: B rows, S samples, T frames (20 ms), C channels of the convolutions, D width.

A row's answer never depends on its company in the batch, and equals what `transformers` gives for that row alone.
For checkpoints with `feat_extract_norm == "group"` (wav2vec2-base, hubert-base, wavlm-base) that takes a norm of our own: the
library's runs over the padding too, so that the longest row of a batch decides the answers of the others, mask or no
mask. The one exception is therefore theirs: a padded batch given to the library itself answers otherwise than this.
These encoders hear a whole recording at once; they have no streaming state.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.exhubert import is_extended, open_extended
from clser.models.encoders.found import checkpoint, load, package, settings, tensor_names
from clser.models.encoders.hub_frames import taken_apart
from clser.models.encoders.layers_of import Choice, Layers, Reader
from clser.models.encoders.own_speech import OwnSpeech, open_own, own_file
from clser.models.encoders.whisper_speech import WhisperSpeech
from clser.models.errors import GivenError
from clser.models.layers.averages import mean
from clser.models.tensors import Sequences, real

HEAD = {"classifier.dense.weight", "classifier.out_proj.weight"}
WAVEFORM = ("hubert", "wav2vec2", "wavlm")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class AffectHead(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Mean over time [B, D] -> numbers such as arousal, dominance, valence, about 0 to 1 (Wagner et al. 2023)."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, numbers)

    def forward(self, mean_BD: Tensor) -> Tensor:
        return self.out_proj(torch.tanh(self.dense(mean_BD)))


class WaveformSpeech(Reader):
    """pcm_BS and samples_B -> `Sequences`: HuBERT, wav2vec2, WavLM. Rows too short for one frame get length 0."""

    def __init__(
        self,
        model: Any,
        normalise: bool,
        choice: Choice,
        head: AffectHead | None = None,
        dimensions: Sequence[str] = (),
    ) -> None:
        front, model.feature_extractor = model.feature_extractor, nn.Identity()  # we run it: see `_convolved`
        super().__init__(model, model.encoder.layers, model.config.hidden_size, choice)
        self.front = front.requires_grad_(False)
        self.head = None if head is None else head.requires_grad_(False)
        self.dimensions = tuple(dimensions)
        """What `affect` gives, in order; empty where the checkpoint has no such head."""
        self.normalise = normalise
        self.steps = tuple(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
        self.samples = math.prod(model.config.conv_stride)
        least = 1
        for kernel, stride in reversed(self.steps):
            least = (least - 1) * stride + kernel
        self.least_samples = least
        """How many samples one frame needs: 400."""

    def forward(self, pcm_BS: Tensor, samples_B: Tensor) -> Sequences:
        last_BTD, hidden, frames_B = self._heard(pcm_BS, samples_B, self.numbers is not None)
        return self.fused(last_BTD, hidden, frames_B)

    def shorten(self, dtype: torch.dtype) -> None:
        """Its weights in half; what leaves it stays float32."""
        super().shorten(dtype)
        self.front.to(dtype)

    def affect(self, pcm_BS: Tensor, samples_B: Tensor) -> Tensor:
        """[B, len(dimensions)] over each whole row, from the checkpoint's own regression head."""
        if self.head is None:
            raise GivenError("this checkpoint has no regression head: open one that has, or train a head on its frames")
        last_BTD, _, frames_B = self._heard(pcm_BS, samples_B, False)
        return self.head(mean(last_BTD, frames_B))

    def frames(self, samples_B: Tensor) -> Tensor:
        """How many frames that many samples give."""
        for kernel, stride in self.steps:
            samples_B = torch.div(samples_B - kernel, stride, rounding_mode="floor") + 1
        return samples_B.clamp_min(0)

    def _heard(self, pcm_BS: Tensor, samples_B: Tensor, hidden: bool) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        if pcm_BS.shape[1] < self.least_samples:
            pcm_BS = functional.pad(pcm_BS, (0, self.least_samples - pcm_BS.shape[1]))
        pcm_BS = self._level(pcm_BS, samples_B)
        frames_B = self.frames(samples_B)
        # Rows without a frame keep one in here: attention needs something to look at.
        samples_B = samples_B.clamp_min(self.least_samples)
        features_BCT = self._convolved(pcm_BS.to(self.encoder.dtype), samples_B)
        mask_BS = real(samples_B, pcm_BS.shape[1]).long()
        told = self.encoder(features_BCT, attention_mask=mask_BS, output_hidden_states=hidden)
        return told.last_hidden_state, told.hidden_states if hidden else (), frames_B

    def _level(self, pcm_BS: Tensor, samples_B: Tensor) -> Tensor:
        """Mean 0 and variance 1 over each row's own samples, where the checkpoint was trained so; zeros after them."""
        real_BS = real(samples_B, pcm_BS.shape[1])
        if not self.normalise:
            return pcm_BS * real_BS
        count_B1 = samples_B.clamp_min(1)[:, None]
        centred_BS = (pcm_BS - (pcm_BS * real_BS).sum(1, keepdim=True) / count_B1) * real_BS
        return centred_BS / torch.sqrt(centred_BS.square().sum(1, keepdim=True) / count_B1 + 1e-7)

    def _convolved(self, pcm_BS: Tensor, samples_B: Tensor) -> Tensor:
        """The library's convolutions, with the group norm over each row's own steps."""
        x_BCT, length_B = pcm_BS[:, None], samples_B
        for layer, (kernel, stride) in zip(self.front.conv_layers, self.steps, strict=True):
            length_B = torch.div(length_B - kernel, stride, rounding_mode="floor") + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                assert norm.num_groups == norm.num_channels, "these encoders norm each channel by itself"
                x_BCT = layer.activation(_norm_of_rows(layer.conv(x_BCT), length_B, norm))
            else:
                x_BCT = layer(x_BCT)
        return x_BCT


def _norm_of_rows(x_BCT: Tensor, length_B: Tensor, norm: nn.GroupNorm) -> Tensor:
    real_B1T = real(length_B, x_BCT.shape[2])[:, None]
    count_B11 = length_B[:, None, None]
    x32_BCT = x_BCT.float()  # a sum over thousands of steps is too long for half precision
    centred_BCT = x32_BCT - (x32_BCT * real_B1T).sum(2, keepdim=True) / count_B11
    variance_BC1 = (centred_BCT * real_B1T).square().sum(2, keepdim=True) / count_B11
    y_BCT = centred_BCT * torch.rsqrt(variance_BC1 + norm.eps)
    return y_BCT.to(x_BCT.dtype) * norm.weight[:, None] + norm.bias[:, None]


def open_frames(name: str) -> WaveformSpeech | WhisperSpeech | OwnSpeech:
    """What `hub:NAME` among a system's fronts stands for, frozen; the layers after an @ side by side."""
    asked, layers = taken_apart(name)
    how: dict[str, Any] = {"layers": layers, "fusion": "concat"} if layers else {}
    path = own_file(asked)
    return open_speech(asked, **how) if path is None else open_own(path, **how)


def open_speech(
    name: str,
    *,
    layers: Layers = "last",
    fusion: str = "mean",
    trainable_layers: int = 0,
    dtype: str = "float32",
    padded: bool = True,
) -> WaveformSpeech | WhisperSpeech:
    """A pretrained speech encoder by folder or hub name, frozen but for its last `trainable_layers`. Downloads nothing.

    `layers`, `fusion`, `trainable_layers`: see `Choice`. `dtype`: how its weights are kept ("float16" for a GPU, "bfloat16"
    there or on a CPU); what comes out is float32. `padded`, for Whisper alone: see `WhisperSpeech`.
    """
    if dtype not in DTYPES:
        raise GivenError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    choice = Choice(layers, fusion, trainable_layers)
    folder = checkpoint(name)
    family = settings(folder).get("model_type")
    library = package("transformers")
    if family == "whisper":
        model = load(library.WhisperModel, folder, dtype=DTYPES[dtype])
        return WhisperSpeech(model.encoder, choice, preprocessing(folder).get("hop_length", 160), padded)
    if family not in WAVEFORM:
        known = ", ".join((*WAVEFORM, "whisper"))
        raise GivenError(f"{name} is a {family!r} checkpoint; the speech encoders known here are {known}")
    normalise = bool(preprocessing(folder).get("do_normalize", True))
    if family == "hubert" and is_extended(folder):
        return WaveformSpeech(open_extended(library, folder, DTYPES[dtype]), normalise, choice)
    if family == "wav2vec2" and tensor_names(folder) >= HEAD:
        whole = load(_with_head(library), folder, dtype=DTYPES[dtype])
        labels = whole.config.id2label
        named = [str(labels[number]).lower() for number in range(len(labels))]
        return WaveformSpeech(whole.wav2vec2, normalise, choice, whole.classifier.float(), named)
    options: dict[str, Any] = {"dtype": DTYPES[dtype]}
    if family != "hubert":
        options["add_adapter"] = False  # it would thin out the frames
    return WaveformSpeech(load(library.AutoModel, folder, **options), normalise, choice)


def preprocessing(folder: Path) -> dict[str, Any]:
    """What the checkpoint says of the sound it wants: in a file of its own, or within the processor's."""
    alone = settings(folder, "preprocessor_config.json")
    return alone or dict(settings(folder, "processor_config.json").get("feature_extractor", {}))


def _with_head(library: Any) -> Any:
    """wav2vec2 with a regression head, as audEERING's emotion checkpoints are stored. Made here: the library is lazy."""

    class Wav2Vec2Affect(library.Wav2Vec2PreTrainedModel):  # type: ignore[misc]  # the library is Any
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.wav2vec2 = library.Wav2Vec2Model(config)
            self.classifier = AffectHead(config.hidden_size, config.num_labels)
            self.post_init()

    return Wav2Vec2Affect
