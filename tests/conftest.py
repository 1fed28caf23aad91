"""Fixtures that several test files share."""

import importlib.util
import os
import signal
import textwrap
from pathlib import Path

import pytest
import torch

os.environ.setdefault("PALPATE_NO_PLUGINS", "1")
# for processes that tests start: their records are compared with those of one thread
os.environ["OMP_NUM_THREADS"] = "1"
# what a shell starts in the background ignores it, and so would the processes that are interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)

NETWORK = """
    import torch
    from torch import nn

    def make(classes=2, bad=False):
        generator = torch.Generator().manual_seed(1)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(784, classes),
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if bad:
                network[3].bias.fill_(float("nan"))
        return network
"""

AUDIT = """
    schema_version: 1
    seed: 0
    dataset: {name: medmnist, flag: breastmnist}
    targets:
      - {name: module, factory: "FACTORY:make", label: small}
    perturbations:
      - {name: fgsm, epsilon: [1/255, 4/255]}
      - {name: gaussian_noise, severity: [1, 3]}
      - {name: patch_drop, coverage: 0.5}
      - {name: weight_bit_flip, trials: 5}
"""


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # tests are small; two OpenMP threads spin on a busy machine


@pytest.fixture
def audit_file(tmp_path):
    """A small audit of a small network on bundled data."""
    factory = tmp_path / "network.py"
    factory.write_text(textwrap.dedent(NETWORK))
    path = tmp_path / "audit.yaml"
    path.write_text(textwrap.dedent(AUDIT).replace("FACTORY", str(factory)))
    return path


@pytest.fixture(scope="session")
def synthetic():
    """Made-up records with known answers (`_synthetic.py`)."""
    path = Path(__file__).parent / "_synthetic.py"
    spec = importlib.util.spec_from_file_location("palpate_synthetic", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def maker(synthetic, tmp_path):
    """An empty made-up run of one model."""
    return synthetic.Maker(tmp_path, targets=("mamba",))


@pytest.fixture(scope="session")
def rich(synthetic, tmp_path_factory):
    """A made-up run with every family in it."""
    return synthetic.rich(tmp_path_factory.mktemp("rich"))
