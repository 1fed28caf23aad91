"""CLIPSeg that can be attacked: the parts of the transformers network, called with gradients.

Lüddecke and Ecker, "Image Segmentation Using Text and Image Prompts", arXiv 2112.10003. The
`forward` of transformers' `CLIPSegForImageSegmentation` runs both encoders without gradients, so
that an attack through it meets a zero gradient and calls the model robust. Here the same parts
answer the same numbers with gradients, and the layers of the image encoder whose output nobody
reads are not run.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from typing_extensions import override


class PromptedClipSeg(nn.Module):
    """One mask per pair of image and question.

    Args:
        net: a transformers `CLIPSegForImageSegmentation`.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.skips: nn.ModuleList | None = None

    @property
    def taken(self) -> Sequence[int]:
        """Numbers of the layers of the image encoder whose output the decoder takes up."""
        return tuple(self.net.config.extract_layers)

    @property
    def embedding(self) -> nn.Embedding:
        """Token id -> vector; what a gradient-guided exchange of tokens looks at."""
        return self.net.clip.text_model.embeddings.token_embedding

    @override
    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Logits (batch, 1, side, side).

        Args:
            images: (batch, 3, side, side), normalised; the side a multiple of the patch.
            tokens: (batch, token) ids that end with the end-of-text token; what is after it is not
                seen, since attention in the text encoder looks back only.
        """
        clip = self.net.clip
        condition = clip.text_projection(clip.text_model(input_ids=tokens).pooler_output)
        logits = self.net.decoder(self._features(images), condition).logits
        return logits.reshape(len(images), 1, *logits.shape[-2:])

    def _features(self, images: Tensor) -> list[Tensor]:
        encoder = self.net.clip.vision_model
        hidden = encoder.pre_layrnorm(encoder.embeddings(images, interpolate_pos_encoding=True))
        found: list[Tensor] = []
        for number, layer in enumerate(encoder.encoder.layers[: max(self.taken) + 1]):
            hidden = layer(hidden, attention_mask=None)
            if number in self.taken:
                skip = nn.Identity() if self.skips is None else self.skips[len(found)]
                found.append(skip(hidden))
        return found
