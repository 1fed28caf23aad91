import sys

import pytest
import torch
from safetensors.torch import save_file

from palpate import Segmentation, registry
from palpate.errors import TargetError, UnknownComponent
from palpate.types import Bounds

nets = pytest.importorskip("monai.networks.nets")

BINARY = Segmentation(("background", "lesion"))
SMALL = {
    "UNet": {"channels": (4, 8, 16), "strides": (2, 2)},
    "AttentionUnet": {"channels": (4, 8), "strides": (2,)},
    "SegResNet": {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
    "SwinUNETR": {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)},
    "BasicUNet": {"features": (4, 4, 8, 8, 16, 4)},
}


def load(task=BINARY, **parameters):
    source = registry.create("targets", "monai", parameters)
    return source.load(task=task, channels=3, bounds=Bounds())


@pytest.mark.parametrize("network", SMALL)
def test_networks_answer_a_plane_per_class(network):
    task = Segmentation(("large bowel", "small bowel", "stomach"), exclusive=False)
    target = load(task, network=network, arguments=SMALL[network])

    assert target.logits(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert target.name == f"MONAI {network}"


def test_is_the_network_of_the_library(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer = nets.UNet(2, 3, 1, channels=(16, 32, 64, 128), strides=(2, 2, 2)).eval()
    save_file(peer.state_dict(), tmp_path / "unet.safetensors")
    images = torch.rand(1, 3, 32, 32)

    target = load(weights=str(tmp_path / "unet.safetensors"), mean=[0.0], std=[1.0])

    logits = target.logits(images)
    assert torch.equal(logits[:, 1:], peer(images))
    assert logits[:, 0].abs().max() == 0


def test_two_planes_where_a_checkpoint_has_them():
    assert load(two_planes=True).module(torch.rand(1, 3, 32, 32)).shape[1] == 2


def test_names_that_monai_has_not_offer_neighbours():
    with pytest.raises(UnknownComponent, match="named 'UNett'.*'UNet'"):
        load(network="UNett")
    with pytest.raises(UnknownComponent, match="named 'Regressor'"):
        load(network="Regressor")


def test_arguments_that_monai_refuses_are_one_line():
    with pytest.raises(TargetError, match="monai UNet: ValueError: "):
        load(arguments={"strides": (2, 2)})


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks", None)

    with pytest.raises(TargetError, match=r"pip install 'palpate\[medical\]'"):
        load()
