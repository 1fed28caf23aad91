"""The short look at every model: what it measures, and that it is written once and for all."""

import numpy as np
import pytest
import torch
from torch import nn

import palpate
from palpate import config
from palpate.campaign._inputs import preparation
from palpate.campaign.drive import drive
from palpate.campaign.plan import make_plan, resolve
from palpate.campaign.probe import probe, spread
from palpate.record import read_json
from palpate.statistics.checks import checks


def resolved(path, *overrides, limit=40):
    return resolve(config.load(path, overrides), path.parent, limit)


def looked(audit, number=0):
    return probe(audit, make_plan(audit).probes[number])


def probes(folder):
    return {p.name: p.read_bytes() for p in (folder / "probes").iterdir()}


def test_the_probe_of_a_plain_network(audit_file):
    found = looked(resolved(audit_file))

    scores = found["attacks"]["scores"]
    assert found["samples"] == 16
    assert found["answers"]["repeat"] == {"largest": 0.0, "decisions": 0}
    assert found["gradients"]["margin"] == {"zero": 0, "not_finite": 0}
    assert found["attacks"]["epsilon"] == pytest.approx(1 / 255)  # the lower of the two middle ones
    assert "transfer" not in scores
    assert sum(scores["unbounded"]) == 0
    assert all(len(s) == 16 for name, s in scores.items() if name != "starts")
    assert found["preparation"]["own"] is None


def test_it_is_the_same_for_any_batch_size_and_when_run_again(audit_file, tmp_path):
    drive(resolved(audit_file), tmp_path / "a")
    drive(resolved(audit_file, "batch_size=3"), tmp_path / "b")
    before = probes(tmp_path / "a")
    (one,) = before
    assert probes(tmp_path / "b") == before

    path = tmp_path / "a" / "probes" / one
    path.write_bytes(path.read_bytes()[:30])
    next((tmp_path / "a" / "cells").iterdir()).unlink()
    drive(resolved(audit_file), tmp_path / "a")

    assert probes(tmp_path / "a") == before


def test_it_can_be_switched_off(audit_file, tmp_path):
    record = drive(resolved(audit_file, "probes=false"), tmp_path / "a")

    assert not (tmp_path / "a" / "probes").exists()
    why = {c.evidence for c in checks(record).find(check="same input, same answer")}
    assert why == {"probes are switched off"}


def test_a_model_that_cannot_be_probed_does_not_stop_the_audit(audit_file, tmp_path, monkeypatch):
    def explode(*_):
        raise ZeroDivisionError("planned failure")

    with monkeypatch.context() as broken:
        broken.setattr("palpate.campaign.probe.preparation", explode)
        record = drive(resolved(audit_file), tmp_path / "a")
    found = checks(record).find(check="unbounded attack reaches total failure")

    assert all(c.status == "ok" for c in record.cells)
    assert [(c.status, c.evidence) for c in found] == [
        ("not run", "the probe failed: ZeroDivisionError: planned failure")
    ]


def test_without_attacks_nothing_is_attacked(audit_file):
    audit = resolved(audit_file, "perturbations=[{name: gaussian_noise}]")

    assert looked(audit).keys() == {"samples", "answers", "preparation"}


def test_a_defended_model_is_attacked_from_the_bare_one(audit_file):
    audit = resolved(audit_file, "defences=[none, input_filter]")

    found = looked(audit, 1)

    assert found["attacks"]["surrogate"] == "small"
    assert len(found["attacks"]["scores"]["transfer"]) == 16


def test_whoever_watches_hears_which_model_is_looked_at(audit_file, tmp_path):
    audit = resolved(audit_file, "defences=[none, input_filter]")
    heard = []

    drive(audit, tmp_path / "run", watch=lambda at: heard.append(at.probed))
    first = heard.copy()
    heard.clear()
    drive(audit, tmp_path / "run", watch=lambda at: heard.append(at.probed))

    assert first[:3] == ["", "small", "small + input_filter"]
    assert not any(first[3:])
    assert heard == [""]  # a look that has been written is not taken again


def test_samples_are_spread_over_the_data(audit_file):
    audit = resolved(audit_file, limit=None)
    names = audit.samples.batch(range(len(audit.samples))).samples
    assert spread(audit, 3).samples == (names[0], names[77], names[-1])


def test_masks_are_probed_too(tmp_path):
    torch.manual_seed(0)
    task = palpate.Segmentation(("background", "organ"))
    rng = np.random.default_rng(0)
    images = rng.random((8, 1, 16, 16)).astype(np.float32)
    data = palpate.Samples.of(images, (images[:, 0] > 0.5).astype(np.int64), task=task)
    network = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        network.weight.fill_(20.0)
        network.bias.fill_(-10.0)
    target = palpate.wrap(network.eval(), task=task)

    run = palpate.audit(target, data, [{"name": "pgd", "epsilon": 0.1}], store=tmp_path / "run")
    (path,) = (tmp_path / "run" / "probes").iterdir()
    found = read_json(path)

    assert sum(found["attacks"]["scores"]["clean"]) == pytest.approx(8)
    assert max(found["attacks"]["scores"]["unbounded"]) < 0.05
    assert set(found["gradients"]) == {"cross-entropy"}
    assert not run.checks().find(status="fail")


class Shifted(nn.Module):
    """Rescales what it gets, then looks at it."""

    def __init__(self, factor, offset):
        super().__init__()
        self.look = nn.Conv2d(1, 2, 1)
        self.factor, self.offset = factor, offset

    def forward(self, images):
        return self.look(images * self.factor + self.offset).mean((2, 3))


@pytest.mark.parametrize(
    ("factor", "offset", "own"),
    [(1.0, 0.0, None), (2.0, -1.0, {"factor": [2.0], "offset": [-1.0]})],
)
def test_what_a_network_does_to_its_input_is_measured(factor, offset, own):
    rng = np.random.default_rng(0)
    task = palpate.Classification(("a", "b"))
    data = palpate.Samples.of(
        rng.random((4, 1, 8, 8)).astype(np.float32), np.zeros(4, int), task=task
    )
    target = palpate.wrap(Shifted(factor, offset).eval(), task=task, mean=(0.5,), std=(0.5,))

    found = preparation(target, data.batch(range(4)))

    if own is None:
        assert found["own"] is None
    else:
        assert found["own"]["factor"] == pytest.approx(own["factor"], abs=1e-4)
        assert found["own"]["offset"] == pytest.approx(own["offset"], abs=1e-4)
    assert found["declared"]["shift"] is None
    assert not target.module.look._forward_pre_hooks
