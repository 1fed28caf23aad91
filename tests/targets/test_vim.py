import pytest
import torch
from safetensors.torch import save_file

from palpate import Classification, Segmentation, registry
from palpate.errors import CheckpointError, ConfigError, TargetError
from palpate.models.vim import vim
from palpate.types import Batch, Bounds

TASK = Classification(("a", "b", "c"))


def load(task=TASK, **parameters):
    source = registry.create("targets", "vim", parameters)
    return source.load(task=task, channels=1, bounds=Bounds())


@pytest.mark.parametrize(
    ("size", "shape"), [(None, (32, 32)), (28, (28, 28)), ([28, 40], (28, 40))]
)
def test_nano_takes_grey_images_of_the_size_it_is_built_for(size, shape):
    target = load(variant="nano", image_size=size)

    assert target.name == "Vim nano"
    assert target.logits(torch.rand(2, 1, *shape)).shape == (2, 3)


def test_images_of_another_size_are_refused_before_the_audit():
    names = ("s0",)
    batch = Batch(torch.rand(1, 1, 28, 28), torch.zeros(1).long(), names, names, ("",))

    with pytest.raises(TargetError, match=r"expected images \(batch, 1, 32, 32\).*got.*28, 28"):
        load().preflight(batch)


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(TargetError, match="image_size: Vim: expected an image size of at least"):
        load(variant="tiny", image_size=8)


def test_image_size_has_to_be_one_or_two_numbers():
    with pytest.raises(ConfigError, match="vim: image_size"):
        load(image_size=[28, 28, 28])


def test_there_is_no_network_for_masks():
    with pytest.raises(TargetError, match="vim: expected a task of Classification or MultiLabel"):
        load(Segmentation(("a", "b")))


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_published_files_load(kind, tmp_path):
    state = vim("nano", num_classes=3, in_chans=1).state_dict()
    path = tmp_path / ("vim.safetensors" if kind == "safetensors" else "vim.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "epoch": 299}, path)

    loaded = load(weights=str(path)).module.state_dict()

    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_of_another_image_size_are_refused(tmp_path):
    path = tmp_path / "vim.safetensors"
    save_file(vim("nano", num_classes=3, in_chans=1, image_size=28).state_dict(), path)

    with pytest.raises(CheckpointError, match=r"pos_embed: expected \(1, 65, 64\), got \(1, 50, 6"):
        load(weights=str(path))
