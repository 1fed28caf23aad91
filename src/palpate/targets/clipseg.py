"""CLIPSeg of the transformers library: a text prompt says what to segment."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from palpate.errors import TargetError
from palpate.models.adapters import Kind, Places, adapt, adapter_tensors
from palpate.models.clipseg import PromptedClipSeg
from palpate.targets.base import TargetSource, Tokenizer
from palpate.types import PromptedSegmentation

FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")
"""What a folder of a whole model holds."""
_NEEDED = tuple(name for name in FILES if name != "model.safetensors")


@final
@dataclass(frozen=True)
class Clipseg(TargetSource):
    """A CLIPSeg from a folder, or from the hub where there is a network.

    A folder with config.json and tokenizer but no weights gives fresh ones. `weights` are those of
    the whole network, or of the adapters alone.

    Attributes:
        path: folder; None to ask the hub.
        hub: id of the model there.
        adapter: "none", or small modules in the frozen network: "dense", "shallow", "lora".
        places: adapters in the image encoder (V), the text encoder too (VL), and on the conditional
            vector too (VLC).
        width: of the adapters' bottleneck, or LoRA's rank; None for the published one.
        second_relu: adapters can only add, as published.
        length: token ids per prompt; None for as many as the text encoder has places.
        initializer_range: deviation of the decoder's linear layers where weights are fresh; None
            for that of transformers, 1, which drowns the question in what the image adds.
        too_long: refuse a prompt that has more tokens, or "truncate" it.
    """

    serves: ClassVar = (PromptedSegmentation,)

    path: Path | None = None
    hub: str = "CIDAS/clipseg-rd64-refined"
    adapter: Kind = "none"
    places: Places = "VL"
    width: int | None = None
    second_relu: bool = True
    length: int | None = None
    initializer_range: float | None = None
    too_long: Literal["refuse", "truncate"] = "refuse"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @override
    def build(self, *, classes: int, channels: int) -> nn.Module:
        if classes != 1 or channels != 3:
            raise TargetError(
                f"clipseg: expected RGB images and one foreground class, got {channels} channels"
                f" and {classes} classes"
            )
        net = _transformers().CLIPSegForImageSegmentation
        if self.path is not None and not list(self.path.glob("*.safetensors")):
            settings = self._loaded(_transformers().CLIPSegConfig)
            if self.initializer_range is not None:
                settings.initializer_range = self.initializer_range
            model = PromptedClipSeg(net(settings))
        else:
            model = PromptedClipSeg(self._loaded(net))
        adapt(
            model,
            self.adapter,
            places=self.places,
            width=self.width,
            second_relu=self.second_relu,
        )
        return model

    @override
    def own_state(self, state: Mapping[str, Tensor], module: nn.Module) -> Mapping[str, Tensor]:
        own = module.state_dict()
        adapters = adapter_tensors(own)
        alone = self.adapter != "none" and set(state) <= set(adapters)
        return {**{k: v for k, v in own.items() if k not in adapters}, **state} if alone else state

    @override
    def kept_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.adapter == "none":
            return state
        return {name: state[name] for name in adapter_tensors(state)}

    @override
    def tokenizer(self) -> Tokenizer:
        tokenizer = self._loaded(_transformers().CLIPTokenizer)
        most = self._loaded(_transformers().CLIPSegConfig).text_config.max_position_embeddings
        length = most if self.length is None else self.length
        if not 3 <= length <= most:
            raise TargetError(f"clipseg: expected a length of 3 to {most} tokens, got {length}")
        return _Tokens(tokenizer, length, truncate=self.too_long == "truncate")

    @override
    def default_label(self) -> str:
        name = f"CLIPSeg {self.hub.rpartition('/')[2] if self.path is None else self.path.name}"
        return name if self.adapter == "none" else f"{name} {self.adapter} {self.places}"

    def _loaded(self, cls: Any) -> Any:
        """What a class of transformers makes of the folder or the id; the reason if it cannot."""
        try:
            if self.path is None:
                return cls.from_pretrained(self.hub)
            # without a vocabulary or a configuration transformers makes up an empty one
            lacking = [n for n in _NEEDED if not (self.path / n).is_file()]
            if lacking:
                raise OSError(f"{self.path} has no {', '.join(lacking)}")
            return cls.from_pretrained(str(self.path))
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:160]
            place = f"path: a folder with {', '.join(FILES)}"
            if self.path is None:
                place = f"a network to fetch {self.hub}, or {place}"
            raise TargetError(f"clipseg: expected {place}, got {reason}") from None


class _Tokens:
    """Prompts -> ids of one length, so that a prompt's answer does not hang on its neighbours."""

    def __init__(self, tokenizer: Any, length: int, *, truncate: bool) -> None:
        self._tokenizer, self._length, self._truncate = tokenizer, length, truncate

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """(prompt, token), int64.

        Raises:
            TargetError: a prompt has more tokens than fit, and may not be cut.
        """
        rows: list[list[int]] = []
        for prompt in prompts:
            ids: list[int] = self._tokenizer(prompt)["input_ids"]
            if len(ids) > self._length and not self._truncate:
                raise TargetError(
                    f"clipseg: expected a prompt of at most {self._length} tokens, got {len(ids)}:"
                    f" {prompt[:60]!r}; shorten it, or set too_long: truncate"
                )
            kept = ids if len(ids) <= self._length else [*ids[: self._length - 1], ids[-1]]
            rows.append(kept + [self.end] * (self._length - len(kept)))
        return torch.tensor(rows)

    @property
    def end(self) -> int:
        """Id of the end-of-text token, which also fills up."""
        return int(self._tokenizer.eos_token_id)

    @property
    def special(self) -> frozenset[int]:
        """Ids that stand for no text."""
        return frozenset(int(i) for i in self._tokenizer.all_special_ids)

    def text(self, ids: Sequence[int]) -> str:
        """The prompt of some ids, without what only begins, ends or fills up."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def __repr__(self) -> str:
        words = sorted(self._tokenizer.get_vocab().items())
        digest = hashlib.sha256(repr(words).encode()).hexdigest()[:16]
        return f"tokens(vocabulary={digest}, length={self._length}, truncate={self._truncate})"


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise TargetError("clipseg targets need the extra: pip install 'palpate[vlm]'") from None
    return transformers
