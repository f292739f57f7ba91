"""A causal language model asked which emotion a text carries, from a folder or the hub's local cache.

It is not let write: each class's name is put behind the prompt, and how likely the model finds it is the answer. So every
class gets its share, whatever the model would rather have said. (The paper let its models write seven numbers of five
decimals each.)

Letters: N prompts, H classes, R rows of both, L tokens, V vocabulary.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clser.models.data.cache import Report
from clser.models.data.soft_labels import Asked
from clser.models.encoders.found import checkpoint, load, package, settings
from clser.models.encoders.pretrained_text import open_tokenizer
from clser.models.errors import GivenError
from clser.models.tensors import real

Array = np.ndarray[Any, Any]
AT_ONCE = 4
"""Prompts that go through the model together, each with every class."""
TOLD_EVERY = 500
MOST_TOKENS = 512
"""Of a prompt with a class: a longer one loses its beginning."""
MOST_LETTERS = 1000
"""Of a text: a longer one loses its end."""


def open_causal(name: str, told: bool, temperature: float, cache: Path, report: Report) -> "CausalText":
    """A language model by folder or hub name, in its own precision, on the GPU if there is one. Downloads nothing."""
    folder = checkpoint(name)
    kinds = settings(folder).get("architectures") or []
    if not any("CausalLM" in kind or "LMHead" in kind for kind in kinds):
        raise GivenError(f"{name} is no causal language model ({', '.join(kinds) or 'it does not say what it is'})")
    model = load(package("transformers").AutoModelForCausalLM, folder, dtype="auto").eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    weights = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.safetensors"))
    ]
    about = blake2b(repr((name, weights, settings(folder), told)).encode(), digest_size=12).hexdigest()
    kept = cache / f"{about}.jsonl"
    return CausalText(model, open_tokenizer(folder), told=told, temperature=temperature, kept=kept, report=report)


class CausalText:
    """A `Source` of soft labels. What was asked once is kept in `kept`, a line each, whatever the temperature."""

    def __init__(
        self, model: Any, tokenizer: Any, *, told: bool, temperature: float, kept: Path, report: Report
    ) -> None:
        self.model, self.tokenizer, self.told, self.temperature = model, tokenizer, told, temperature
        self.kept, self.report = kept, report

    def __call__(self, asked: Sequence[Asked], heads: Sequence[str]) -> Array:
        """[N, H]; NaN for rows without a text."""
        said = self._known()
        keys = [_key(row, heads) if row.text.strip() else "" for row in asked]
        fresh = {key: row for key, row in zip(keys, asked, strict=True) if key and key not in said}
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        with self.kept.open("a", encoding="utf-8") as out:
            out.write("\n" if fresh else "")  # or a line that a killed run tore would spoil the next one
            todo = list(fresh)
            for first in range(0, len(todo), AT_ONCE):
                some = todo[first : first + AT_ONCE]
                log_NH = self.log_likelihoods([self.prompt(fresh[key], heads) for key in some], heads)
                for key, log_H in zip(some, log_NH.tolist(), strict=True):
                    said[key] = log_H
                    out.write(json.dumps({"key": key, "log": log_H}) + "\n")
                if first // TOLD_EVERY < (first + AT_ONCE) // TOLD_EVERY:
                    self.report(f"the language model was asked about {first + len(some)} of {len(todo)} texts")
                    out.flush()
        out_NH = np.full((len(asked), len(heads)), np.nan)
        for place, key in enumerate(keys):
            if key:
                log_H = np.array(said[key]) / self.temperature
                likely_H = np.exp(log_H - log_H.max())
                out_NH[place] = likely_H / likely_H.sum()
        return out_NH

    def prompt(self, row: Asked, heads: Sequence[str]) -> str:
        """What the class's name is put behind. Models that were taught a form of talk get it in that form."""
        text = " ".join(row.text.split())[:MOST_LETTERS]
        question = f"Somebody says: {text}\nThese emotions may be in it: {', '.join(heads)}.\n"
        if self.told:
            question += (
                f"Those who labelled it heard {' and '.join(row.emotions)} most of all; others may be in it too.\n"
            )
        question += "Name one of them."
        if not getattr(self.tokenizer, "chat_template", None):
            return f"{question}\nEmotion:"
        talk = [{"role": "user", "content": question}]
        # Models that think aloud first are asked not to; to others that key means nothing.
        told = self.tokenizer.apply_chat_template(
            talk, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return f"{told}Emotion:"

    def log_likelihoods(self, prompts: Sequence[str], heads: Sequence[str]) -> Array:
        """[N, H]: log p(class | prompt), the sum over the tokens of its name."""
        rows, begins = [], []
        for prompt in prompts:
            before = self._ids(prompt)
            for head in heads:
                whole = self._ids(f"{prompt} {head}")
                rows.append(whole)
                begins.append(_shared(before, whole))
        # A prompt that is too long loses its beginning: the class's name stands at the end.
        cut = [max(0, len(row) - MOST_TOKENS) for row in rows]
        rows = [row[many:] for row, many in zip(rows, cut, strict=True)]
        begins = [max(1, begin - many) for begin, many in zip(begins, cut, strict=True)]
        log_R = self._sums(rows, begins)
        return np.asarray(log_R.double().cpu().numpy()).reshape(len(prompts), len(heads))

    def _sums(self, rows: Sequence[Sequence[int]], begins: Sequence[int]) -> Tensor:
        device = self.model.device
        length_R = torch.tensor([len(row) for row in rows])
        ids_RL = torch.zeros(len(rows), int(length_R.max()), dtype=torch.int64)
        for line, row in zip(ids_RL, rows, strict=True):
            line[: len(row)] = torch.tensor(row)
        there_RL = real(length_R, ids_RL.shape[1])
        with torch.inference_mode():
            logits_RLV = self.model(input_ids=ids_RL.to(device), attention_mask=there_RL.long().to(device)).logits
            # A token's logits stand at the one before it; padding is behind, where nothing before it looks.
            log_RL = torch.gather(
                logits_RLV[:, :-1].float().log_softmax(-1), 2, ids_RL[:, 1:, None].to(device)
            ).squeeze(2)
        place_L = torch.arange(1, ids_RL.shape[1])
        counts_RL = there_RL[:, 1:] & (place_L >= torch.tensor(begins)[:, None])
        summed: Tensor = (log_RL * counts_RL.to(device)).sum(1)
        return summed

    def _ids(self, text: str) -> list[int]:
        marked = not getattr(self.tokenizer, "chat_template", None)  # a talk has its marks already
        return list(self.tokenizer(text, add_special_tokens=marked)["input_ids"])

    def _known(self) -> dict[str, list[float]]:
        if not self.kept.exists():
            return {}
        said = {}
        for line in filter(None, self.kept.read_text(encoding="utf-8").splitlines()):
            try:
                told = json.loads(line)
                said[told["key"]] = told["log"]
            except json.JSONDecodeError:  # torn, where a run was killed: it is asked again
                continue
        return said


def _key(row: Asked, heads: Sequence[str]) -> str:
    return blake2b(repr((row.text, sorted(row.emotions), tuple(heads))).encode(), digest_size=12).hexdigest()


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with: a tokenizer may join the prompt's last letters with the class's first."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
