"""MedMamba against outputs of the published code, and what it accepts and refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from palpate.errors import CheckpointError, UnknownComponent
from palpate.models.medmamba import VARIANTS, MedMamba, medmamba, official_state

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = {"tiny": 14_457_222, "small": 18_625_158, "base": 39_864_838}


def small(**changes):
    config = {"depths": (1, 1), "dims": (8, 16), "num_classes": 2, "in_chans": 1, "patch_size": 2}
    torch.manual_seed(0)
    return MedMamba(**{**config, **changes}).eval()


@pytest.fixture(autouse=True)
def _own_random_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])
def test_published_code_gives_the_same(backend):
    description = json.loads((GOLDEN / "medmamba_a.json").read_text())
    model = MedMamba(**description["config"], scan_backend=backend).eval()
    model.load_state_dict(load_file(GOLDEN / "medmamba_a.weights.safetensors"), strict=True)
    assert sum(p.numel() for p in model.parameters()) == description["parameters"]
    io = load_file(GOLDEN / "medmamba_a.io.safetensors")
    images = io["input"].requires_grad_()
    logits = model(images)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    found = {
        "features": model.features(images),
        "logits": logits,
        "input_grad_of_sum_logsumexp": gradient,
    }
    for name, value in found.items():
        error = (value - io[name]).abs().max() / io[name].abs().max()
        assert error < 1e-4, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize(("variant", "parameters"), PUBLISHED.items())
def test_published_parameter_counts(variant, parameters):
    with torch.device("meta"):
        model = MedMamba(**VARIANTS[variant], num_classes=6)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_published_state_dict_has_355_tensors():
    with torch.device("meta"):
        state = MedMamba(**VARIANTS["tiny"], num_classes=8).state_dict()
    assert len(state) == 355
    scan = "layers.0.blocks.0.self_attention."
    expected = {
        "x_proj_weight": (4, 35, 96),
        "dt_projs_weight": (4, 96, 3),
        "dt_projs_bias": (4, 96),
        "A_logs": (384, 16),
        "Ds": (384,),
        "in_proj.weight": (192, 48),
        "conv2d.weight": (96, 1, 3, 3),
        "out_norm.bias": (96,),
        "out_proj.weight": (48, 96),
    }
    assert {k: tuple(state[scan + k].shape) for k in expected} == expected


@pytest.mark.parametrize("variant", ["nano", "micro"])
@pytest.mark.parametrize("side", [28, 64])
def test_small_variants_take_small_images(variant, side):
    model = medmamba(variant, num_classes=2, in_chans=1).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, side, side)).shape == (1, 2)


def test_nano_is_small():
    assert sum(p.numel() for p in medmamba("nano", num_classes=2, in_chans=1).parameters()) < 5e5


def test_unknown_variant_offers_the_nearest():
    with pytest.raises(UnknownComponent, match="no MedMamba variant 'nan'; did you mean 'nano'"):
        medmamba("nan", num_classes=2)


def test_image_need_not_be_square():
    model, images = small(), torch.rand(2, 1, 8, 20)
    assert model.features(images).shape == (2, 2, 5, 16)
    assert model(images).shape == (2, 2)


def test_odd_rows_are_dropped_before_merging():
    model, images = small(depths=(1, 1, 1), dims=(8, 16, 32)), torch.rand(1, 1, 15, 13)
    assert model.features(images).shape == (1, 1, 1, 32)
    assert torch.equal(model(images), model(images[:, :, :14, :12]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 3, 8), "2 stages with patches of 2 need images of at least 4 pixels"),
        ((1, 3, 8, 8), r"expected images \(batch, 1, height, width\); got shape \(1, 3, 8, 8\)"),
        ((1, 8, 8), "expected images"),
    ],
)
def test_unfit_images_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.rand(shape))


@pytest.mark.parametrize("changes", [{"dims": (8, 24)}, {"depths": (1,)}, {"dims": (7, 14)}])
def test_unfit_widths_are_refused(changes):
    with pytest.raises(ValueError, match="widths that double"):
        small(**changes)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s}])
def test_official_layouts_load(wrap):
    source, model = small(), small()
    with torch.no_grad():
        source.head.bias += 1
    model.load_state_dict(official_state(wrap(source.state_dict())), strict=True)
    assert torch.equal(model.head.bias, source.head.bias)


def test_older_layout_is_refused_with_the_reason():
    with pytest.raises(CheckpointError, match="from before April 2024"):
        official_state({"layers.0.blocks.0.finalconv11.weight": torch.zeros(1)})


def test_no_state_dict_is_refused():
    with pytest.raises(CheckpointError, match="expected a mapping of names to tensors"):
        official_state({"epoch": 3, "optimizer": {}})


def test_evaluation_is_deterministic_and_training_drops_paths():
    model, images = small(depths=(2, 2), drop_path_rate=0.9), torch.rand(4, 1, 8, 8)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_sample_does_not_depend_on_its_batch():
    model, images = small().double(), torch.rand(5, 1, 12, 12, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    assert torch.allclose(model(images), alone, rtol=1e-12, atol=1e-12)


def test_decay_excludes_only_parameters_of_the_scan():
    model = small()
    names = {name.rsplit(".", 1)[1] for name in model.no_weight_decay()}
    assert names == {"A_logs", "Ds", "dt_projs_bias"}
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()
