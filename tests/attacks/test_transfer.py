import copy
import textwrap

import numpy as np
import pytest
import torch

import palpate
from palpate import config, registry
from palpate.attacks.pgd import Pgd
from palpate.attacks.transfer import Transfer
from palpate.campaign.plan import make_plan, protect, resolve
from palpate.contracts.oracles import batch, probe
from palpate.errors import CapabilityError, CheckpointError, ConfigError, UnknownComponent
from palpate.outcome import Status
from palpate.targets.base import Target

NETWORK = """
    from torch import nn

    def make():
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )
"""


@pytest.fixture
def surrogate(tmp_path):
    """A network in a file, as an audit file names it."""
    (tmp_path / "small.py").write_text(textwrap.dedent(NETWORK))
    return written(tmp_path, seed=0)


def written(folder, *, seed):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )
    torch.save(network.state_dict(), folder / "small.pt")
    return {
        "name": "module",
        "factory": f"{folder}/small.py:make",
        "weights": str(folder / "small.pt"),
        "mean": (0.5,),
        "std": (0.25,),
    }


class Undifferentiable(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        with torch.no_grad():
            return self.inner(images)


def test_without_a_defence_it_is_the_attack_itself():
    target, given = probe(), batch(4)
    same = Transfer(epsilon=0.02, attack={"name": "pgd", "steps": 5})
    pgd = Pgd(epsilon=0.02, steps=5)

    found = same.search(target, given.images, given.references)

    assert torch.equal(found.images, pgd(target, given.images, given.references))
    assert set(found.status) == {Status.OK}


def test_crafts_on_the_surrogate_and_replays_on_the_target(surrogate):
    given, target = batch(4), probe()
    blind = target.with_module(Undifferentiable(target.module))
    attack = Transfer(epsilon=0.05, surrogate=surrogate, attack={"name": "pgd", "steps": 4})
    before, digest = copy.deepcopy(surrogate), blind.digest()

    found = attack.search(blind, given.images, given.references)

    other = attack._loaded(blind, given.images)
    expected = Pgd(epsilon=0.05, steps=4)(other, given.images, given.references)
    assert torch.equal(found.images, expected)
    assert not torch.equal(
        found.images, Pgd(epsilon=0.05, steps=4)(target, given.images, given.references)
    )
    assert set(found.status) == {Status.OK}
    assert surrogate == before
    assert blind.digest() == digest
    assert all(p.requires_grad and p.grad is None for p in other.module.parameters())
    assert attack._loaded(blind, given.images) is other  # read once


def test_through_the_bare_target_of_a_defended_one(audit_file):
    """The undefended origin is what a member of an ensemble, or a filter's model, offers."""
    audit = resolve(config.load(audit_file), audit_file.parent, limit=4)
    bare = audit.targets[0]
    defended = protect(audit, bare, {"name": "input_filter"})
    given = audit.samples.batch(range(4))
    attack = Transfer(epsilon=0.05, attack={"name": "pgd", "steps": 3})

    assert defended.bare is bare
    assert bare.bare is None
    assert defended.digest() != bare.digest()
    crafted = attack(defended, given.images, given.references)
    pgd = Pgd(epsilon=0.05, steps=3)
    assert torch.equal(crafted, pgd(bare, given.images, given.references))
    assert not torch.equal(crafted, pgd(defended, given.images, given.references))


def test_minimal_attacks_are_cut_to_the_budget(few):
    target, images, labels = few
    attack = Transfer(epsilon=0.01, attack={"name": "deepfool", "steps": 5})
    moved = attack(target, images[:4], labels[:4]) - images[:4]

    assert 0 < float(moved.abs().max()) <= 0.01 + 1e-6


def keys(audit_file):
    audit = resolve(config.load(audit_file), audit_file.parent, limit=4)
    plan = make_plan(audit)
    return [cell.key for cell in plan.cells if cell.entry["perturbation"] == "transfer"]


def test_the_cell_hangs_on_what_is_in_the_file_and_not_on_where_it_lies(audit_file, tmp_path):
    def audit(folder, seed):
        folder.mkdir(exist_ok=True)
        (folder / "network.py").write_text((tmp_path / "network.py").read_text())
        torch.manual_seed(seed)
        state = {
            "0.weight": torch.randn(4, 1, 3, 3),
            "0.bias": torch.randn(4),
            "3.weight": torch.randn(2, 784),
            "3.bias": torch.randn(2),
        }
        torch.save(state, folder / "other.pt")
        path = folder / "audit.yaml"
        spec = '{name: module, factory: "FACTORY:make", weights: other.pt}'.replace(
            "FACTORY", str(tmp_path / "network.py")
        )
        text = audit_file.read_text().partition("perturbations:")[0]
        path.write_text(f"{text}perturbations:\n  - {{name: transfer, surrogate: {spec}}}\n")
        return path

    first = keys(audit(tmp_path / "a", 0))
    assert first == keys(audit(tmp_path / "b", 0))  # the path is relative to the audit file
    assert first != keys(audit(tmp_path / "b", 1))
    (tmp_path / "b" / "other.pt").unlink()
    with pytest.raises(CheckpointError, match=r"expected weights at .*other.pt"):
        keys(tmp_path / "b" / "audit.yaml")


def test_the_data_that_its_attack_is_fitted_on_count_by_their_content(tmp_path):
    def made(base, first):
        base.mkdir(exist_ok=True)
        images = torch.full((4, 6, 6), 7, dtype=torch.uint8).numpy()
        images[0] = first
        labels = torch.tensor([[0], [1], [0], [1]]).numpy()
        np.savez(base / "other.npz", train_images=images, train_labels=labels)
        fit_on = {"name": "npz", "path": "other.npz", "split": "train", "classes": ["a", "b"]}
        attack = {"name": "universal", "fit_on": fit_on}
        return registry.create("attacks", "transfer", {"attack": attack}, base=base)

    def identity(attack):
        return attack.identity(probe(), batch(1))

    first = identity(made(tmp_path / "a", 1))
    assert first["attack"] == identity(made(tmp_path / "b", 1))["attack"]
    assert first["attack"] != identity(made(tmp_path / "b", 2))["attack"]
    assert identity(Transfer(attack="pgd")) == identity(Transfer(attack={"name": "pgd"}))


def test_a_whole_audit_with_a_defence(tmp_path):
    samples = palpate.load_dataset("medmnist", limit=6)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2)).eval()
    target = palpate.wrap(module, task=samples.task)
    run = palpate.audit(
        target,
        samples,
        [{"name": "transfer", "epsilon": 0.05, "attack": "fgsm"}],
        store=tmp_path / "run",
        defences=[{"name": "none"}, {"name": "input_filter", "kind": "bit_depth"}],
    )

    rows = [r for r in run.summary().rows if r.perturbation == "transfer"]
    assert {r.defence for r in rows} == {"none", "input_filter"}
    assert run.report().is_file()


@pytest.mark.parametrize(
    ("setting", "kind", "message"),
    [
        ({"attack": {"name": "pgd", "epsilon": 0.1}}, ConfigError, "without epsilon and norm"),
        ({"attack": "transfer"}, ConfigError, "expected the name of another attack"),
        ({"attack": {"name": "pdg"}}, UnknownComponent, "did you mean 'pgd'"),
        ({"attack": "window_level"}, ConfigError, "expected one whose budget is a norm"),
        ({"surrogate": "bare"}, ConfigError, "expected a target with a name, or 'undefended'"),
        ({"surrogate": {"name": "tim"}}, UnknownComponent, "did you mean 'timm'"),
        ({"surrogate": {"name": "timm", "modle": "x"}}, UnknownComponent, "did you mean 'model'"),
    ],
)
def test_bad_settings_are_refused(setting, kind, message):
    with pytest.raises(kind, match=message):
        Transfer(**setting)


def test_what_does_not_serve_the_task_is_refused(thresholds):
    with pytest.raises(CapabilityError, match="for its surrogate, got Segmentation"):
        Transfer(surrogate={"name": "timm"}).check(thresholds.target)
    with pytest.raises(ConfigError, match="loss: expected one of"):
        Transfer(attack={"name": "pgd", "loss": "dlr"}).check(thresholds.target)


def test_masks(thresholds):
    target, images, masks = thresholds
    defended = Target(target.module, target.task, bare=target)
    found = Transfer(epsilon=0.3, attack="segpgd")(defended, images, masks)

    assert float((found - images).abs().max()) > 0.2


def test_the_attack_on_the_surrogate_may_average_over_draws():
    target, given = probe(), batch(2)
    spec = {"name": "pgd", "steps": 2, "eot": 3}
    found = Transfer(epsilon=0.02, attack=spec).search(target, given.images, given.references)

    pgd = Pgd(epsilon=0.02, steps=2, eot=3)
    assert torch.equal(found.images, pgd(target, given.images, given.references))
