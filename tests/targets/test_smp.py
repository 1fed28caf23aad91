"""The parameter counts are those of the U-Net study's networks at three classes."""

import pytest
import torch
from safetensors.torch import save_file

from palpate import Segmentation, registry
from palpate.errors import CheckpointError, TargetError, UnknownComponent
from palpate.types import Bounds

smp = pytest.importorskip("segmentation_models_pytorch")

BINARY = Segmentation(("background", "lesion"))
ORGANS = Segmentation(("large bowel", "small bowel", "stomach"), exclusive=False)
COUNTS = {
    ("unet", "vgg13"): 18_438_835,
    ("unet", "vgg16"): 23_748_531,
    ("unet", "resnext101_32x8d"): 95_755_699,
    ("unet", "efficientnet-b7"): 67_095_619,
    ("unetplusplus", "efficientnet-b7"): 68_163_843,
}
SLIM = {"encoder_depth": 3, "decoder_channels": (16, 8, 8)}


def make(**parameters):
    return registry.create("targets", "smp", parameters)


def load(task=BINARY, *, channels=1, **parameters):
    parameters.setdefault("arguments", SLIM)
    return make(**parameters).load(task=task, channels=channels, bounds=Bounds())


@pytest.mark.parametrize(("architecture", "encoder"), COUNTS)
def test_networks_of_the_study_have_its_parameter_counts(architecture, encoder):
    source = make(architecture=architecture, encoder=encoder)
    with torch.device("meta"):
        network = source.build(classes=source.outputs(ORGANS), channels=3)

    assert sum(p.numel() for p in network.parameters()) == COUNTS[architecture, encoder]


@pytest.mark.parametrize(
    ("task", "two_planes", "planes", "decided"),
    [
        (BINARY, False, 1, (2, 32, 32)),
        (BINARY, True, 2, (2, 32, 32)),
        (Segmentation(("none", "left", "right")), False, 3, (2, 32, 32)),
        (ORGANS, False, 3, (2, 3, 32, 32)),
        (Segmentation(("polyp",), exclusive=False), False, 1, (2, 1, 32, 32)),
    ],
)
def test_the_task_decides_the_head(task, two_planes, planes, decided):
    target = load(task, two_planes=two_planes)
    images = torch.rand(2, 1, 32, 32)

    assert target.module(images).shape == (2, planes, 32, 32)
    logits = target.logits(images)
    assert logits.shape == (2, len(task.classes), 32, 32)
    if task is BINARY and not two_planes:
        assert logits[:, 0].abs().max() == 0
    names = ("a", "b")
    from palpate.types import Batch

    prediction = target.predict(Batch(images, torch.zeros(decided).long(), names, names, ("", "")))
    assert prediction.decisions.shape == decided


def test_weights_of_a_file_are_fitted_or_refused(tmp_path):
    first = load()
    save_file(first.module.state_dict(), tmp_path / "unet.safetensors")

    again = load(weights=str(tmp_path / "unet.safetensors"), encoder_weights="imagenet")

    assert again.digest() == first.digest()
    with pytest.raises(CheckpointError, match=r"unet.safetensors does not fit.*segmentation_head"):
        load(weights=str(tmp_path / "unet.safetensors"), two_planes=True)


def test_names_that_smp_has_not_offer_neighbours():
    with pytest.raises(UnknownComponent, match=r"architecture named 'unet\+\+'.*did you mean"):
        load(architecture="unet++")
    with pytest.raises(UnknownComponent, match="encoder named 'resnet19'.*'resnet18'"):
        load(encoder="resnet19")


def test_arguments_that_smp_refuses_are_one_line():
    with pytest.raises(TargetError, match="smp unet with resnet18: TypeError: .*depth"):
        load(arguments={"depth": 3})


def test_no_network_is_one_plain_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("Name or service not known\nRetrying")

    monkeypatch.setattr(smp, "create_model", refuse)

    with pytest.raises(TargetError) as found:
        load(encoder_weights="imagenet")
    assert str(found.value) == (
        "smp: expected to download the imagenet weights of resnet18, got ConnectionError: Name or"
        " service not known Retrying; give weights, or leave encoder_weights empty"
    )


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "segmentation_models_pytorch", None)

    with pytest.raises(TargetError, match=r"pip install 'palpate\[vision\]'"):
        load()


def test_serves_segmentation_only():
    from palpate import Classification

    with pytest.raises(TargetError, match="smp: expected a task of Segmentation"):
        load(Classification(("a", "b")))
