import numpy as np
import pytest
import torch
from torch import nn

import palpate
from palpate import registry
from palpate.defences.ensemble import Ensemble
from palpate.errors import ConfigError
from palpate.saliency import check_saliency, grad_cam
from palpate.types import Bounds, Classification, Segmentation

pytest.importorskip("captum")
MASKS = Segmentation(("background", "lesion"))


class Small(nn.Module):
    """An encoder that halves the image, a decoder that doubles it, and a head of 1 x 1."""

    def __init__(self, classes=2):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 5, 2, stride=2), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(5, classes, 1)

    def forward(self, images):
        return self.head(self.decoder(self.encoder(images)))


class Labels(nn.Module):
    """A feature plane of half the side, its mean, one logit or several."""

    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(6, outputs)

    def forward(self, images):
        return self.head(self.features(images).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """One plane at the entrance, tokens from there on, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 4, stride=4)
        self.blocks = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.blocks(self.patches(images).flatten(2).mT).mean(dim=1))


def cases(masks=None, *, reference=None, side=12):
    draw = torch.Generator().manual_seed(3)
    clean = torch.rand((2, 1, side, side), generator=draw)
    found = {"sample": np.array(["a", "b"]), "clean": clean.numpy()}
    found["perturbed"] = (clean * 0.7).numpy()
    if masks is not None:
        found["clean_mask"] = masks.numpy().astype(np.uint8)
        found["reference_mask"] = (masks if reference is None else reference).numpy()
    return found


def by_hand(features, score, image, side):
    """ReLU of the channels, weighted with the mean gradient of the score, made as large as it."""
    plane = features(image)
    (gradient,) = torch.autograd.grad(score(plane), plane)
    heat = (gradient.mean(dim=(2, 3), keepdim=True) * plane).sum(dim=1, keepdim=True).relu()
    return nn.functional.interpolate(heat, (side, side), mode="bilinear")[0, 0].detach().numpy()


def test_masks_are_explained_at_the_last_block_of_the_decoder():
    module = Small().eval()
    target = palpate.wrap(module, task=MASKS)
    masks = torch.zeros((2, 12, 12), dtype=torch.long)
    masks[:, 2:6, 3:9] = 1
    images = cases(masks)

    found = grad_cam(target, images)

    def score(plane):
        logits = module.head(plane)[0]
        return ((logits[1] - logits[0]) * masks[0]).sum()

    for name in ("clean", "perturbed"):
        image = torch.from_numpy(images[name][:1])
        expected = by_hand(lambda x: module.decoder(module.encoder(x)), score, image, 12)
        assert np.allclose(found[f"{name}_saliency"][0], expected, atol=1e-6)
        assert expected.max() > 0
    assert found["saliency_note"].tolist() == ["Grad-CAM of lesion at decoder"] * 2
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("outputs", [1, 3])
def test_labels_are_explained_for_the_class_decided_on_the_clean_image(outputs):
    module = Labels(outputs).eval()
    task = Classification(("a", "b", "c")[: max(2, outputs)])
    target = palpate.wrap(module, task=task)
    images = cases()
    image = torch.from_numpy(images["clean"][:1])
    decided = int(target.logits(image).argmax())

    found = grad_cam(target, images)

    def score(plane):
        logits = module.head(plane.mean(dim=(2, 3)))[0]
        return logits[decided] if outputs > 1 else (2 * decided - 1) * logits[0]

    expected = by_hand(module.features, score, image, 12)
    assert np.allclose(found["clean_saliency"][0], expected, atol=1e-6)
    assert found["saliency_note"][0] == f"Grad-CAM of {task.classes[decided]} at features"


def test_an_empty_answer_is_explained_over_the_reference_then_over_all():
    target = palpate.wrap(Small().eval(), task=MASKS)
    nothing = torch.zeros((2, 12, 12), dtype=torch.long)
    reference = nothing.clone()
    reference[0, :4, :4] = 1
    found = grad_cam(target, cases(nothing, reference=reference))["clean_saliency"]
    same = grad_cam(target, cases(reference))["clean_saliency"]
    whole = grad_cam(target, cases(torch.ones_like(nothing)))["clean_saliency"]

    assert np.array_equal(found[0], same[0])
    assert np.array_equal(found[1], whole[1])


def test_a_layer_may_be_named_and_is_found_behind_a_defence():
    target = palpate.wrap(Small().eval(), task=MASKS)
    images = cases(torch.ones((2, 12, 12), dtype=torch.long))
    filtered = registry.create("defences", "input_filter", {"kind": "median"}).protect(target)

    for behind, name in ((target, "encoder"), (filtered, "inner.encoder")):
        found = grad_cam(behind, images, layer="encoder")
        assert found["saliency_note"][0] == f"Grad-CAM of lesion at {name}"
    missing = grad_cam(target, images, layer="nowhere")
    assert missing["saliency_note"][0] == "no Grad-CAM: the model has no module 'nowhere'"


def test_a_model_without_such_a_layer_says_so():
    found = grad_cam(palpate.wrap(Tokens().eval(), task=Classification(("a", "b"))), cases())

    assert np.isnan(found["clean_saliency"]).all()
    assert found["saliency_note"][0] == (
        "no Grad-CAM: patches, the last module that answers with (batch, channel, height, width),"
        " has only 17% of the network before it"
    )


def test_a_layer_that_is_asked_twice_says_so():
    target = Ensemble(mirror=True).protect(palpate.wrap(Small().eval(), task=MASKS))
    found = grad_cam(target, cases(torch.ones((2, 12, 12), dtype=torch.long)))

    assert "is asked several times for one image" in found["saliency_note"][0]


def test_a_model_that_cannot_be_differentiated_says_so():
    class Cut(Small):
        def forward(self, images):
            return self.head(self.decoder(self.encoder(images)).detach())

    found = grad_cam(palpate.wrap(Cut().eval(), task=MASKS), cases(torch.ones(2, 12, 12)))

    assert found["saliency_note"][0].startswith("no Grad-CAM: RuntimeError: ")


@pytest.mark.parametrize(
    ("name", "task", "side", "expected"),
    [
        ("smp", MASKS, 64, "Grad-CAM of lesion at decoder"),
        ("timm", Classification(("a", "b")), 64, "at layer4"),
        ("timm", Classification(("a", "b")), 32, "at layer3"),  # the last one is a single pixel
        ("vim", Classification(("a", "b")), 32, "no Grad-CAM: patch_embed.proj, the last module"),
    ],
)
def test_networks_of_the_house(name, task, side, expected):
    target = registry.create("targets", name, {}).load(task=task, channels=1, bounds=Bounds())
    dense = isinstance(task, Segmentation)
    masks = torch.ones((2, side, side), dtype=torch.long) if dense else None

    assert expected in grad_cam(target, cases(masks, side=side))["saliency_note"][0]


def test_captum_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"expected captum .* pip install 'palpate\[explain\]'"):
        check_saliency()
