"""Vim against slow arithmetic of its own, the published layout, and what it accepts and refuses."""

import numpy as np
import pytest
import torch

from palpate import Classification
from palpate.errors import CheckpointError, UnknownComponent
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.models.vim import VARIANTS, Mixer, Vim, official_state, vim

# hustvl/Vim: vim/models_mamba.py, mamba-1p1p1/mamba_ssm/modules/mamba_simple.py
PUBLISHED = {"tiny": 7_148_008, "small": 25_796_584, "base": 97_598_440}
TWINS = {"conv1d": "conv1d_b", "x_proj": "x_proj_b", "dt_proj": "dt_proj_b"}


def small(**changes):
    config = {"depth": 2, "width": 32, "num_classes": 3, "in_chans": 2, "d_state": 4}
    config |= {"patch_size": 4, "image_size": (12, 8)}
    return Vim(**{**config, **changes}).eval()


def published_shapes(depth, width, *, tokens=197, classes=1000, patch=(3, 16, 16)):
    inner, rank = 2 * width, width // 16
    one_way = {
        "conv1d{}.weight": (inner, 1, 4),
        "conv1d{}.bias": (inner,),
        "x_proj{}.weight": (rank + 32, inner),
        "dt_proj{}.weight": (inner, rank),
        "dt_proj{}.bias": (inner,),
        "A{}_log": (inner, 16),
        "D{}": (inner,),
    }
    mixer = {"in_proj.weight": (2 * inner, width), "out_proj.weight": (width, inner)}
    for suffix in ("", "_b"):
        mixer |= {name.format(suffix): shape for name, shape in one_way.items()}
    shapes = {
        "patch_embed.proj.weight": (width, *patch),
        "patch_embed.proj.bias": (width,),
        "cls_token": (1, 1, width),
        "pos_embed": (1, tokens, width),
        "norm_f.weight": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    for i in range(depth):
        shapes[f"layers.{i}.norm.weight"] = (width,)
        shapes |= {f"layers.{i}.mixer.{name}": shape for name, shape in mixer.items()}
    return shapes


def slow_direction(slow, x, state, suffix):
    kernel, bias = state[f"conv1d{suffix}.weight"], state[f"conv1d{suffix}.bias"]
    convolved = np.zeros_like(x)
    for t in range(len(x)):
        convolved[t] = bias
        for back in range(min(t + 1, 4)):
            convolved[t] += kernel[:, 0, 3 - back] * x[t - back]
    return slow.scan(
        slow.silu(convolved),
        to_parts=state[f"x_proj{suffix}.weight"],
        to_step=state[f"dt_proj{suffix}.weight"],
        step_bias=state[f"dt_proj{suffix}.bias"],
        log_rates=state[f"A{suffix}_log"],
        skip=state[f"D{suffix}"],
    )


def slow_mixer(slow, tokens, state):
    x, gate = np.split(tokens @ state["in_proj.weight"].T, 2, axis=1)
    there = slow_direction(slow, x, state, "") * slow.silu(gate)
    back = slow_direction(slow, x[::-1], state, "_b") * slow.silu(gate[::-1])
    return (there + back[::-1]) / 2 @ state["out_proj.weight"].T


def slow_vim(slow, image, state, *, depth):
    embedded = slow.patches(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"])
    tokens = list(embedded.reshape(-1, embedded.shape[-1]))
    middle = len(tokens) // 2
    tokens.insert(middle, state["cls_token"][0, 0])
    x = np.stack(tokens) + state["pos_embed"][0]
    for i in range(depth):
        start = f"layers.{i}.mixer."
        mixer = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        x = x + slow_mixer(slow, slow.rms_norm(x, state[f"layers.{i}.norm.weight"]), mixer)
    final = slow.rms_norm(x[middle], state["norm_f.weight"])
    return state["head.weight"] @ final + state["head.bias"]


@pytest.mark.parametrize("size", [(12, 8), (12, 12), (15, 21)])
def test_slow_arithmetic_gives_the_same(size, slow, randomised):
    model = randomised(small(image_size=size))
    images = torch.rand(2, 2, *size, dtype=torch.float64)
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    expected = [slow_vim(slow, image, state, depth=2) for image in images.numpy()]
    np.testing.assert_allclose(model(images).detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(("variant", "parameters"), PUBLISHED.items())
def test_published_parameter_counts(variant, parameters):
    with torch.device("meta"):
        model = vim(variant, num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_names_and_shapes(variant):
    with torch.device("meta"):
        state = vim(variant, num_classes=1000).state_dict()
    expected = published_shapes(24, VARIANTS[variant]["width"])
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_finer_stride_has_the_published_number_of_positions():
    with torch.device("meta"):
        model = Vim(1, 192, 1000, image_size=224, stride=8)
    assert model.pos_embed.shape == (1, 27 * 27 + 1, 192)


def silent(mixer, suffix):
    """Turn one direction off: its sequence becomes zero."""
    convolution = getattr(mixer, f"conv1d{suffix}")
    torch.nn.init.zeros_(convolution.weight)
    torch.nn.init.zeros_(convolution.bias)


@pytest.mark.parametrize(("off", "heard"), [("_b", "before"), ("", "after"), (None, "both")])
def test_each_direction_carries_its_side_of_the_image_to_the_middle(off, heard, randomised):
    model = randomised(small(depth=1, image_size=(24, 4)))  # six patches, one below the other
    if off is not None:
        silent(model.layers[0].mixer, off)
    images = torch.rand(1, 2, 24, 4, dtype=torch.float64, requires_grad=True)
    model(images).square().sum().backward()
    per_patch = images.grad.unflatten(2, (6, 4)).abs().amax(dim=(0, 1, 3, 4)) > 0
    before, after = [True] * 3, [True] * 3
    if heard != "both":
        before, after = (before, [False] * 3) if heard == "before" else ([False] * 3, after)
    assert per_patch.tolist() == before + after


def test_class_token_is_read_from_the_middle():
    model = Vim(1, 16, 5, image_size=224)
    torch.nn.init.zeros_(model.layers[0].mixer.out_proj.weight)  # the block passes tokens through
    model(torch.rand(1, 3, 224, 224)).square().sum().backward()
    assert model.pos_embed.grad[0].abs().amax(dim=1).nonzero().tolist() == [[98]]


def test_swapping_the_directions_is_reversing_the_tokens(randomised):
    mixer, swapped = randomised(Mixer(32, d_state=4)), Mixer(32, d_state=4).double()
    state = mixer.state_dict()
    for name in state:
        if name.endswith(("out_proj.weight", "in_proj.weight")):
            continue
        head, dot, tail = name.partition(".")
        twin = {"A_log": "A_b_log", "D": "D_b"} | TWINS
        twin |= {b: a for a, b in twin.items()}
        swapped.get_parameter(name).data.copy_(state[twin[head] + dot + tail])
    swapped.in_proj, swapped.out_proj = mixer.in_proj, mixer.out_proj
    tokens = torch.rand(2, 7, 32, dtype=torch.float64)
    assert torch.allclose(swapped(tokens.flip(1)).flip(1), mixer(tokens), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(swapped(tokens), mixer(tokens))


def test_sums_are_kept_in_single_precision_when_the_weights_are_half():
    model, seen = small().half(), []
    for block in model.layers:
        block.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
        block.mixer.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    assert model(torch.rand(1, 2, 12, 8).half()).dtype == torch.float16
    assert seen == [torch.float16, torch.float32] * 2


def test_sample_does_not_depend_on_its_batch(randomised):
    model, images = randomised(small()), torch.rand(5, 2, 12, 8, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    assert torch.allclose(model(images), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_backends_of_the_scan_agree(backend):
    model, images = small(), torch.rand(2, 2, 12, 8)
    other = small(scan_backend=backend)
    other.load_state_dict(model.state_dict())
    assert torch.allclose(other(images), model(images), rtol=1e-4, atol=1e-6)


def test_every_pixel_of_a_patch_has_a_finite_gradient_and_the_rest_is_dropped():
    model, images = small(image_size=(15, 21)), torch.rand(1, 2, 15, 21, requires_grad=True)
    model(images).logsumexp(1).sum().backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad[:, :, :12, :20] != 0).all()
    assert not images.grad[:, :, 12:].any()
    assert not images.grad[:, :, :, 20:].any()


@pytest.mark.parametrize("side", [28, 33, 64])
def test_nano_is_small_and_takes_small_images(side):
    model = vim("nano", num_classes=2, in_chans=1, image_size=side).eval()
    assert sum(p.numel() for p in model.parameters()) < 4e5
    with torch.no_grad():
        assert model(torch.rand(1, 1, side, side)).shape == (1, 2)


@pytest.mark.parametrize("shape", [(1, 2, 8, 12), (1, 2, 12, 9), (1, 3, 12, 8), (2, 12, 8)])
def test_unfit_images_are_refused(shape):
    expected = r"expected images \(batch, 2, 12, 8\), the size it was built for; got shape \("
    with pytest.raises(ValueError, match=expected + ", ".join(map(str, shape))):
        small()(torch.rand(shape))


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(ValueError, match=r"at least one patch of 4 pixels a side; got \(12, 3\)"):
        small(image_size=(12, 3))


def test_unknown_variant_offers_the_nearest():
    with pytest.raises(UnknownComponent, match="no Vim variant 'tini'; did you mean 'tiny'"):
        vim("tini", num_classes=2)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 300}])
def test_official_layouts_load(wrap):
    shapes = published_shapes(8, 64, tokens=65, classes=2, patch=(1, 4, 4))
    source = {name: torch.randn(shape) for name, shape in shapes.items()}
    model = vim("nano", num_classes=2, in_chans=1)
    model.load_state_dict(official_state(wrap(source)), strict=True)
    assert all(torch.equal(tensor, source[name]) for name, tensor in model.state_dict().items())


def test_no_state_dict_is_refused():
    with pytest.raises(CheckpointError, match="Vim: expected a mapping of names to tensors"):
        official_state({"epoch": 3, "optimizer": {}})


def test_evaluation_is_deterministic_and_training_drops_paths():
    model, images = small(drop_path_rate=0.5), torch.rand(32, 2, 12, 8)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_decay_excludes_embeddings_and_parameters_of_the_scan():
    model = small()
    names = {name.rpartition(".")[2] for name in model.no_weight_decay()}
    assert names == {"cls_token", "pos_embed", "A_log", "A_b_log", "D", "D_b"}
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()


def test_both_directions_start_with_the_same_steps():
    mixer = small().layers[0].mixer
    for bias in (mixer.dt_proj.bias, mixer.dt_proj_b.bias):
        steps = torch.nn.functional.softplus(bias.detach())
        assert 0.0009 < float(steps.min()) < float(steps.max()) < 0.11


def test_fault_replay_is_bit_identical(agree):
    net = small(in_chans=3, image_size=(16, 16))
    task, shape = Classification(("a", "b", "c")), (2, 3, 16, 16)
    tensors = len(net.state_dict())
    every = WeightBitFlip(trials=tensors, scope="tensor", bits="exponent")
    assert agree(every, net, task, shape) == []
    assert agree(WeightBitFlip(trials=15, flips=3), net, task, shape) == []
