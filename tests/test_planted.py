"""Planted defects: the checks of a real audit must catch each, and pass an honest model.

Real images (BreastMNIST); `planted/honest.safetensors` is an adversarially trained network, made by
`planted/honest.yaml`. Every defect is put around or into that network, or into the attack.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage
from torch import nn
from typing_extensions import override

import palpate
from palpate.attacks._climb import SteppedAttack
from palpate.attacks._projection import project

FOLDER = Path(__file__).parent / "planted"
NORM = {"mean": (0.5,), "std": (0.5,)}
ATTACKS = [
    {"name": "fgsm", "epsilon": ["2/255", "16/255"]},
    {"name": "pgd", "epsilon": ["2/255", "16/255", "48/255"], "steps": 20},
]
OF_ATTACKS_AND_MODELS = (
    "same input, same answer",
    "answers do not hang on the rest of the batch",
    "output is logits, not probabilities",
    "gradients reach the input",
    "stable answers in a small box",
    "normalisation applied once",
    "the attack could act",
    "perturbation within the budget",
    "pixels within the legal range",
    "attack success equals the re-measured decisions",
    "the loss of the attack rises",
    "attack converged (loss flat over the last steps)",
    "best iterate against last",
    "robust accuracy falls with epsilon",
    "many steps are at least as strong as one",
    "random points not stronger than gradients",
    "gradient-free attack not stronger than white-box",
    "transfer attack not stronger than white-box",
    "several random starts agree",
    "unbounded attack reaches total failure",
    "the curve reaches total failure",
)


def honest():
    spec = importlib.util.spec_from_file_location("planted_network", FOLDER / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.make()
    state = load_file(FOLDER / "honest.safetensors")
    network.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    )
    return network.eval()


@pytest.fixture(scope="module")
def samples():
    return palpate.load_dataset("medmnist", flag="breastmnist", split="test")


@pytest.fixture
def checked(samples, tmp_path):
    """Status of every check of an audit, the worst where a check has several rows."""

    def run(network, *, attacks=ATTACKS, limit=64, norm=NORM, others=()):
        data = samples
        if limit:
            data = palpate.load_dataset("medmnist", flag="breastmnist", split="test", limit=limit)
        targets = [
            palpate.wrap(one, task=data.task, name=name, **norm)
            for name, one in (("model", network), *others)
        ]
        found = palpate.audit(targets, data, attacks, store=tmp_path / "run")
        (tmp_path / "report.html").write_bytes(found.report().read_bytes())
        worst = {}
        for check in found.checks():  # failures come first
            worst.setdefault(check.check, check)
        return worst

    return run


def failed(found):
    return {name for name, check in found.items() if check.status == "fail"}


class Around(nn.Module):
    """A network behind something."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)


def test_an_honestly_trained_model_passes_clean(checked):
    other = honest()
    with torch.no_grad():
        other[-1].weight.mul_(1.01)
    found = checked(honest(), limit=None, others=[("other", other)])

    assert failed(found) == set()
    seen = {name: found[name].status for name in OF_ATTACKS_AND_MODELS}
    assert seen == dict.fromkeys(OF_ATTACKS_AND_MODELS, "pass")


class Rounded(nn.Module):
    def forward(self, values):
        return (values * 4).round() / 4


def test_quantised_activations(checked, tmp_path):
    network = honest()
    found = checked(nn.Sequential(*network[:3], Rounded(), *network[3:]).eval())

    assert {"gradients reach the input", "the attack could act"} <= failed(found)
    assert "unbounded attack reaches total failure" in failed(found)
    assert "no evidence in either direction" in (tmp_path / "report.html").read_text()
    assert "pass straight through" in found["gradients reach the input"].advice


class Loud(Around):
    def forward(self, images):
        return self.network(images) * 1e4


def test_saturated_logits(checked):
    found = checked(Loud(honest()).eval())

    assert "gradients reach the input" in failed(found)
    evidence = found["gradients reach the input"].evidence
    assert "by margin: 0 zero" in evidence
    assert "unbounded attack reaches total failure" in failed(found)
    assert "loss: margin" in found["unbounded attack reaches total failure"].advice


class Filtered(Around):
    def forward(self, images):
        smooth = ndimage.median_filter(images.detach().numpy(), size=(1, 1, 3, 3))
        return self.network(torch.from_numpy(smooth))


def test_preprocessing_without_a_gradient(checked):
    found = checked(Filtered(honest()).eval())

    assert {"gradients reach the input", "the attack could act"} <= failed(found)
    assert "the loss of the attack rises" in failed(found)


class Noisy(Around):
    def forward(self, images):
        return self.network(images + 0.3 * torch.randn_like(images))


def test_a_random_defence(checked):
    found = checked(Noisy(honest()).eval())

    assert "same input, same answer" in failed(found)
    assert "attack success equals the re-measured decisions" in failed(found)
    assert "two answers to the same 16 images" in found["same input, same answer"].evidence


@final
@dataclass(frozen=True)
class Downhill(SteppedAttack):
    """PGD with its sign the wrong way round."""

    @override
    def _run(self, search, seeds):
        images = search.images
        for _ in range(self.steps):
            moved = images - self.epsilon / 4 * search.gradient(images).sign()
            images = project(
                moved,
                search.images,
                norm="linf",
                epsilon=self.epsilon,
                bounds=search.target.bounds,
            )
        search.look(images)
        return images


def test_an_attack_with_a_sign_error(checked):
    attacks = [
        Downhill(epsilon=16 / 255, steps=10),
        {"name": "fgsm", "epsilon": "16/255"},
    ]

    found = checked(honest(), attacks=attacks)

    assert "the loss of the attack rises" in failed(found)
    assert "many steps are at least as strong as one" in failed(found)
    assert "sign" in found["the loss of the attack rises"].advice
    assert "gradients reach the input" not in failed(found)


def test_a_dropout_left_on(checked):
    network = honest()
    network = nn.Sequential(*network[:-1], nn.Dropout(0.3), network[-1]).eval()
    network[-2].train()

    found = checked(network)

    assert failed(found) >= {"same input, same answer"}
    assert "in training mode: 11" in found["same input, same answer"].evidence


def test_a_batch_norm_left_in_training_mode(checked):
    network = honest()
    network[1].train()

    found = checked(network)

    assert failed(found) >= {"same input, same answer"}
    assert "buffers" in found["same input, same answer"].evidence


class Normalised(Around):
    def forward(self, images):
        return self.network((images - 0.5) / 0.5)


def test_a_normalisation_inside_the_model_and_outside(checked):
    found = checked(Normalised(honest()).eval())

    assert "normalisation applied once" in failed(found)
    assert "the very numbers" in found["normalisation applied once"].evidence


def test_images_that_were_normalised_before(samples, tmp_path):
    images = (samples.batch(range(64)).images - 0.5) / 0.5
    data = palpate.Samples.of(
        images.numpy(), samples.references[list(range(64))], task=samples.task, bounds=(-1.0, 1.0)
    )
    target = palpate.wrap(honest(), task=data.task, bounds=(-1.0, 1.0), **NORM)

    run = palpate.audit(target, data, [{"name": "fgsm", "epsilon": 0.01}], store=tmp_path / "run")

    (found,) = run.checks().find(check="normalisation applied once")
    assert found.status in ("fail", "warn")
    assert "batch norm" in found.evidence


def test_probabilities_in_place_of_logits(checked):
    network = nn.Sequential(*honest(), nn.Softmax(dim=1)).eval()

    assert checked(network)["output is logits, not probabilities"].status == "warn"


@final
@dataclass(frozen=True)
class Boaster(SteppedAttack):
    """Claims a success that nobody finds again."""

    @override
    def _run(self, search, seeds):
        search.look((search.images + self.epsilon).clamp(*search.target.bounds))
        search.score = torch.zeros_like(search.score)
        search.feel(search.score == 0, None)
        return search.best


def test_an_attack_that_claims_what_it_did_not_reach(checked):
    found = checked(honest(), attacks=[Boaster(epsilon=1 / 255)])

    assert "attack success equals the re-measured decisions" in failed(found)
    assert "claims" in found["attack success equals the re-measured decisions"].evidence


@final
@dataclass(frozen=True)
class Spender(SteppedAttack):
    """Leaves the legal range."""

    @override
    def _run(self, search, seeds):
        search.look(search.images + 2)
        return search.images + 2


def test_an_attack_out_of_range(checked):
    found = checked(honest(), attacks=[Spender(epsilon=1 / 255)])

    assert {"pixels within the legal range", "every planned cell finished"} <= failed(found)
