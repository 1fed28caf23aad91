import pytest
import torch
from torch import nn

import palpate
from palpate.contracts.oracles import batch, probe
from palpate.errors import TargetError
from palpate.types import MultiLabel, Segmentation

TWO = palpate.Classification(("negative", "positive"))


class Answer(nn.Module):
    """Returns what it is told to."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


def wrap(answer, task=TWO, **options):
    return palpate.wrap(Answer(answer).eval(), task=task, **options)


def pixels(images):
    return images.flatten(1).sum(1)


@pytest.mark.parametrize("shape", [lambda z: z, lambda z: z[:, None]], ids=["(n,)", "(n, 1)"])
def test_one_logit_is_the_pair_zero_and_z(shape):
    images = torch.rand(3, 1, 4, 4) - 0.5

    logits = wrap(lambda x: shape(pixels(x))).logits(images)

    assert torch.equal(logits, torch.stack([torch.zeros(3), pixels(images)], dim=1))


def test_outputs_of_other_libraries_are_understood():
    images = torch.rand(2, 1, 4, 4)
    plain = wrap(lambda x: torch.stack([pixels(x)] * 2, 1)).logits(images)

    class Output:
        logits = plain

    for answer in (lambda x: Output(), lambda x: {"logits": plain}, lambda x: {"out": plain}):
        assert torch.equal(wrap(answer).logits(images), plain)
    with pytest.raises(TargetError, match="expected a tensor, an object with .logits.*got list"):
        wrap(lambda x: [plain]).logits(images)


def test_class_count_mismatch_names_both():
    with pytest.raises(TargetError, match=r"expected 2 classes .*got shape \(2, 3\)"):
        wrap(lambda x: torch.zeros(2, 3)).logits(torch.rand(2, 1, 4, 4))


def test_dense_and_multi_label_heads():
    images = torch.rand(2, 1, 4, 4)
    dense = wrap(lambda x: x, Segmentation(("background", "lesion")))
    labels = wrap(lambda x: torch.zeros(2, 3), MultiLabel(("a", "b", "c")))
    planes = wrap(lambda x: x, Segmentation(("lesion",), exclusive=False))

    assert dense.logits(images).shape == (2, 2, 4, 4)
    assert labels.logits(images).shape == (2, 3)
    assert planes.logits(images).shape == (2, 1, 4, 4)


def test_training_mode_is_refused():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(TargetError, match=r"evaluation mode; call \.eval\(\)"):
        palpate.wrap(module.train(), task=TWO)
    target = palpate.wrap(module.eval(), task=TWO)
    module.train()
    with pytest.raises(TargetError, match=r"evaluation mode"):
        target.logits(torch.rand(1, 1, 4, 4))


def test_non_finite_answers_are_found_before_the_audit():
    target = probe()
    with torch.no_grad():
        target.module.head.bias[1] = float("nan")

    with pytest.raises(TargetError, match="non-finite for 3 of 3 samples, first 's0'"):
        target.preflight(batch(3))


def test_decisions_in_place_of_logits_are_refused():
    with pytest.raises(TargetError, match=r"expected logits, got torch.int64; leave out the arg"):
        wrap(lambda x: x.flatten(1).argmax(1)).preflight(batch())


def test_only_a_module_can_be_wrapped():
    with pytest.raises(TargetError, match=r"expected an nn.Module, got function"):
        palpate.wrap(pixels, task=TWO)


def test_normalisation_is_inside_the_target():
    images = torch.rand(2, 3, 4, 4)
    target = wrap(lambda x: x.mean((2, 3))[:, :2], mean=(0.1, 0.2, 0.3), std=(2.0,))

    assert torch.allclose(
        target.logits(images), ((images.mean((2, 3)) - torch.tensor([0.1, 0.2, 0.3])) / 2)[:, :2]
    )
    with pytest.raises(TargetError, match="mean and std of 1 or 1 entries, got 3 and 1"):
        target.logits(images[:, :1])


def test_digest_sees_weights_structure_and_preprocessing_but_no_names():
    target = probe()
    same = palpate.wrap(
        target.module, task=target.task, mean=target.mean, std=target.std, name="other"
    )
    shifted = palpate.wrap(target.module, task=target.task, mean=(0.4,), std=target.std)
    digest = target.digest()

    assert same.digest() == digest
    assert shifted.digest() != digest
    with torch.no_grad():
        target.module.norm.running_mean[0] += 1
    assert target.digest() != digest


def test_images_that_the_model_cannot_take_are_named():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    with pytest.raises(
        TargetError, match=r"takes images of shape \(2, 2, 8, 8\), got RuntimeError"
    ):
        palpate.wrap(module, task=TWO).preflight(batch(2))


def test_bounds_must_not_be_empty():
    with pytest.raises(TargetError, match="std: expected more than 0"):
        wrap(lambda x: x, std=(0.0,))
    with pytest.raises(TargetError, match="expected low < high"):
        wrap(lambda x: x, bounds=(1.0, 1.0))
