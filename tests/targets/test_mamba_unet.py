import pytest
import torch
from safetensors.torch import save_file

from palpate import Classification, Segmentation, registry
from palpate.errors import CheckpointError, TargetError
from palpate.models.mamba_unet import mamba_unet
from palpate.types import Batch, Bounds, PromptedSegmentation

TASK = Segmentation(("background", "lesion"))


def load(task=TASK, **parameters):
    source = registry.create("targets", "mamba_unet", parameters)
    return source.load(task=task, channels=1, bounds=Bounds())


def batch(side):
    names = ("s0", "s1")
    references = torch.zeros(2, side, side).long()
    return Batch(torch.rand(2, 1, side, side), references, names, names, ("", ""))


def test_nano_answers_a_label_for_every_pixel():
    target = load(variant="nano")
    prediction = target.predict(batch(64))

    assert target.name == "Mamba U-Net nano"
    assert prediction.logits.shape == (2, 2, 64, 64)
    assert prediction.decisions.shape == (2, 64, 64)


def test_sigmoid_planes_need_no_background():
    prediction = load(Segmentation(("lesion",), exclusive=False)).predict(batch(32))

    assert prediction.logits.shape == (2, 1, 32, 32)
    assert set(prediction.decisions.unique().tolist()) <= {0, 1}


def test_sides_that_do_not_divide_are_refused_before_the_audit():
    with pytest.raises(TargetError, match=r"multiples of 16 pixels; got shape \(2, 1, 28, 28\)"):
        load().preflight(batch(28))


@pytest.mark.parametrize("task", [Classification(("a", "b")), PromptedSegmentation()])
def test_there_is_no_network_for_other_tasks(task):
    with pytest.raises(TargetError, match="mamba_unet: expected a task of Segmentation, got"):
        load(task)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_published_files_load(kind, tmp_path):
    state = mamba_unet("nano", num_classes=2, in_chans=1).state_dict()
    published = {f"vmunet.{name}": tensor for name, tensor in state.items()}
    published |= {"total_ops": torch.zeros(1), "vmunet.layers.0.total_params": torch.zeros(1)}
    path = tmp_path / ("unet.safetensors" if kind == "safetensors" else "latest.pth")
    if kind == "safetensors":
        save_file(published, path)
    else:
        torch.save({"epoch": 300, "model_state_dict": published}, path)

    loaded = load(weights=str(path)).module.state_dict()

    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_of_another_class_count_are_refused(tmp_path):
    path = tmp_path / "unet.safetensors"
    save_file(mamba_unet("nano", num_classes=9, in_chans=1).state_dict(), path)

    with pytest.raises(CheckpointError, match=r"final_conv.bias: expected \(2,\), got \(9,\)"):
        load(weights=str(path))
