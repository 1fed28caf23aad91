"""Adapters in the real rd64 configuration: the published counts, and what the second ReLU does."""

import pytest
import torch

from palpate.models.adapters import Adapter, adapt
from palpate.models.clipseg import PromptedClipSeg

transformers = pytest.importorskip("transformers")

# seeds of the study: VL 2,974,464 trainable, VLC 3,237,376; shallow VLC 4,201,984
COUNTS = {
    ("dense", "V"): 1_784_448,
    ("dense", "VL"): 2_974_464,
    ("dense", "VLC"): 3_237_376,
    ("shallow", "VLC"): 4_201_984,
}


@pytest.mark.parametrize(("kind", "places"), COUNTS)
def test_trainable_parameters_are_the_published_ones(kind, places):
    config = transformers.CLIPSegConfig(reduce_dim=64, use_complex_transposed_convolution=True)
    config.vision_config.patch_size = 16
    with torch.device("meta"):
        model = PromptedClipSeg(transformers.CLIPSegForImageSegmentation(config))
        adapt(model, kind, places=places)

    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == COUNTS[kind, places]


def test_an_adapter_with_the_second_relu_only_adds():
    torch.manual_seed(0)
    features = torch.randn(50, 8)
    published, plain = Adapter(8, 4), Adapter(8, 4, second_relu=False)
    plain.load_state_dict(published.state_dict())

    added = published(features) - features
    assert (added >= -1e-6).all()
    assert (plain(features) - features < -1e-3).any()
    by_hand = (features @ published.down.weight.T + published.down.bias).clamp(min=0)
    by_hand = (by_hand @ published.up.weight.T + published.up.bias).clamp(min=0)
    assert torch.allclose(added, by_hand, atol=1e-6)


def test_no_adapter_leaves_everything_trainable():
    with torch.device("meta"):
        model = PromptedClipSeg(
            transformers.CLIPSegForImageSegmentation(transformers.CLIPSegConfig())
        )
        adapt(model, "none")

    assert all(p.requires_grad for p in model.parameters())
