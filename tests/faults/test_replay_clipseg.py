"""Replay on a real CLIPSeg: image encoder, text encoder and a decoder with side inputs."""

import pytest
import torch
from torch import nn

from palpate.faults.activation_bit_flip import ActivationBitFlip
from palpate.faults.weight_bit_flip import WeightBitFlip

transformers = pytest.importorskip("transformers")


class Prompted(nn.Module):
    """CLIPSeg asked one question, its mask pooled to logits."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("question", torch.tensor([[1, 5, 9, 2]]))

    def forward(self, images):
        asked = self.question.expand(len(images), -1)
        mask = self.net(input_ids=asked, pixel_values=images, attention_mask=None).logits
        return mask.reshape(len(images), 10, -1).mean(dim=2)


@pytest.fixture(scope="module")
def prompted():
    small = {"num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.CLIPSegConfig(
        text_config={
            **small,
            "hidden_size": 16,
            "vocab_size": 12,
            "max_position_embeddings": 8,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={**small, "hidden_size": 16, "image_size": 40, "patch_size": 8},
        projection_dim=16,
        extract_layers=[1, 2, 3],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    torch.manual_seed(0)
    return Prompted(transformers.CLIPSegForImageSegmentation(config))


def test_weights_of_both_encoders_and_the_decoder_replay_exactly(wrap, agree, prompted):
    target, batch = wrap(prompted, (2, 3, 40, 40))
    fault = WeightBitFlip(trials=90, scope="layer")
    layers = " ".join(s.name for s in fault._strata(fault._places(target)))
    assert all(part in layers for part in ("vision_model", "text_model", "decoder"))
    assert agree(fault, target, batch) == []
    assert agree(WeightBitFlip(trials=40, bits=(30,), scope="layer"), target, batch) == []


def test_activations_replay_exactly(wrap, prompted):
    target, batch = wrap(prompted, (2, 3, 40, 40))
    fault = ActivationBitFlip(trials=40, scope="layer", bits=(30, 31))
    seeds = fault.seeds(0)
    golden = target.predict(batch).logits
    changed = 0
    with fault.prepared(target, batch) as enter:
        for trial in range(fault.trials):
            with enter(seeds.at(trial)) as world:
                changed += not torch.equal(world.target.predict(batch).logits, golden)
    assert changed > 10
    assert torch.equal(target.predict(batch).logits, golden)
