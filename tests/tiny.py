"""Systems and corpora so small that training them takes a moment."""

from pathlib import Path

import numpy as np
import soundfile

from clser.models.data.cache import Features
from clser.models.data.clips import Clip

ZOO = '''
"""A linear layer over the mean of what was heard so far, and of the words."""

from typing import NamedTuple

import torch
from msgspec import Struct
from torch import Tensor, nn

from clser.models.features.fronts import front
from clser.models.systems import WORDS, About

ABOUT = About("Tiny", "a test")
WIDTH = front("logmel").width


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    drop: float = 0.1
    reads: bool = False
    hears: bool = True
    enrols: bool = False
    streams: str = "exactly"


class State(NamedTuple):
    heard_B1: Tensor
    sum_BD: Tensor


class Tiny(nn.Module):
    frame_samples = 640

    def __init__(self, config, heads):
        super().__init__()
        self.heads = heads
        self.streams = config.streams
        self.fronts = ("logmel",) if config.hears else ()
        self.words = "hashed" if config.reads else ""
        self.register_buffer("mean_F", torch.zeros(WIDTH))
        self.leave = nn.Linear(WIDTH, len(heads))
        self.bag = nn.Embedding(512, len(heads), padding_idx=0)
        self.drop = nn.Dropout(config.drop)
        self.speaker_numbers = 1 + WIDTH if config.enrols else 0

    def fit_inputs(self, given):
        self.mean_F.copy_(given["logmel"].x_BTD.flatten(0, 1).mean(0))

    def start(self, rows):
        zeros = self.mean_F.new_zeros
        return State(zeros(rows, 1), zeros(rows, WIDTH))

    def tell(self, given, at_BK):
        e_BKX, _ = self.hear(given, self.start(len(at_BK)), at_BK)
        return e_BKX

    def hear(self, given, state, at_BK=None):
        x_BTD, length_B = given["logmel"]
        # what tells of the speaker is never trained
        y_BTD = torch.tanh((x_BTD - self.mean_F) * 0.3)
        many_T1 = torch.arange(1, y_BTD.shape[1] + 1, device=y_BTD.device)[:, None]
        mean_BTD = (state.sum_BD[:, None] + y_BTD.cumsum(1)) / (state.heard_B1[:, None] + many_T1)
        at = length_B[:, None].clamp_min(1) - 1 if at_BK is None else at_BK
        mean_BKD = mean_BTD.gather(1, at[..., None].expand(-1, -1, WIDTH))
        return torch.cat((torch.ones_like(mean_BKD[..., :1]), mean_BKD), 2), state

    def answer(self, e_BKX, speaker_BX):
        usual_BD = speaker_BX[:, 1:] / (speaker_BX[:, :1] + 1.0)
        return self.leave(self.drop(e_BKX[..., 1:] - usual_BD[:, None]))

    def forward(self, given, state, at_BK=None):
        logits = 0.0
        if self.fronts:
            e_BKX, _ = self.hear(given, state, at_BK)
            length_B = given["logmel"].length_B
            logits = self.answer(e_BKX, e_BKX.new_zeros(len(length_B), 1 + WIDTH)) * (length_B > 0)[:, None, None]
        if self.words:
            ids_BLG, words_B = given[WORDS]
            bag_BH = self.bag(ids_BLG % 512).sum((1, 2)) / words_B.clamp_min(1)[:, None]
            logits = logits + bag_BH[:, None]
        return logits, state


def build(config, heads):
    return Tiny(config, heads)
'''

EMOTIONS = ("anger", "neutral", "sadness")


def zoo(folder: Path) -> Path:
    """A folder with the system `tiny`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.py").write_text(ZOO, encoding="utf-8")
    return folder


def clips_and_features(corpora: tuple[str, ...] = ("one", "two"), speakers: int = 4, each: int = 2, width: int = 240):
    """Clips whose label can be learnt from their features."""
    random = np.random.default_rng(0)
    clips = [
        Clip(
            Path(f"{corpus}/{who}_{emotion}_{n}.wav"),
            corpus,
            f"{corpus}_{who}",
            "male" if who % 2 else "female",
            emotion,
        )
        for corpus in corpora
        for who in range(speakers)
        for emotion in EMOTIONS
        for n in range(each)
    ]
    lengths = random.integers(20, 45, len(clips))
    told = random.normal(0.0, 1.0, (len(EMOTIONS), width))
    rows = [
        -5.0 + told[EMOTIONS.index(clip.emotion)] + 0.5 * random.normal(0.0, 1.0, (length, width))
        for clip, length in zip(clips, lengths, strict=True)
    ]
    return clips, Features(np.concatenate(rows).astype(np.float16), np.cumsum([0, *lengths]))


def corpora(
    folder: Path,
    *,
    names: tuple[str, ...] = ("one", "two"),
    speakers: int = 4,
    each: int = 2,
    seconds: float = 0.9,
    emotions: tuple[str, ...] = EMOTIONS,
):
    """A corpora folder of tones: their pitch is the speaker's, how it moves is the emotion."""
    random = np.random.default_rng(1)
    for corpus in names:
        (folder / corpus).mkdir(parents=True)
        lines = ["file,emotion,speaker,gender,text"]
        for who in range(speakers):
            for place, emotion in enumerate(emotions):
                for n in range(each):
                    slope = (1.0, 0.0, -0.6, 0.5, -0.3, 0.8, -1.0, 0.3, -0.8)[place]
                    time_s = np.arange(round(16_000 * (seconds + 0.1 * n))) / 16_000
                    pitch_hz = (120 + 25 * who) * 2 ** (slope * time_s / seconds)
                    phase = 2 * np.pi * pitch_hz.cumsum() / 16_000
                    sound = sum(np.sin(k * phase) / k for k in range(1, 12)) * np.hanning(len(time_s)) * 0.2
                    sound = sound + 0.002 * random.standard_normal(len(time_s))
                    name = f"{who}_{emotion}_{n}.wav"
                    soundfile.write(folder / corpus / name, sound, 16_000)
                    lines.append(f"{name},{emotion},{corpus}_{who},{'female' if who % 2 else 'male'},sentence {n}")
        (folder / corpus / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
