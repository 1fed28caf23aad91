"""Mamba U-Net against slow arithmetic of its own, the published layout, what it refuses."""

import numpy as np
import pytest
import torch

from palpate import Segmentation
from palpate.errors import CheckpointError, UnknownComponent
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.models.mamba_unet import VARIANTS, MambaUnet, PatchExpand, mamba_unet, official_state

# JCruan519/VM-UNet: models/vmunet, configs; 27.427 and 44.27 million are quoted by later papers
PUBLISHED = {"tiny": 27_427_561, "small": 44_273_833}


def small(**changes):
    config = {"depths": (1, 1, 1), "depths_decoder": (1, 1, 1), "dims": (8, 16, 32)}
    config |= {"num_classes": 3, "in_chans": 2, "d_state": 4}
    return MambaUnet(**{**config, **changes}).eval()


def published_shapes(depths, depths_decoder, dims, *, classes, in_chans=3):
    def norm(name, width):
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    def blocks(start, depth, width):
        inner, rank, scan = 2 * width, -(-width // 16), "self_attention"
        shapes = {}
        for i in range(depth):
            block = f"{start}.blocks.{i}"
            shapes |= norm(f"{block}.ln_1", width) | norm(f"{block}.{scan}.out_norm", inner)
            shapes |= {
                f"{block}.{scan}.x_proj_weight": (4, rank + 32, inner),
                f"{block}.{scan}.dt_projs_weight": (4, inner, rank),
                f"{block}.{scan}.dt_projs_bias": (4, inner),
                f"{block}.{scan}.A_logs": (4 * inner, 16),
                f"{block}.{scan}.Ds": (4 * inner,),
                f"{block}.{scan}.in_proj.weight": (2 * inner, width),
                f"{block}.{scan}.conv2d.weight": (inner, 1, 3, 3),
                f"{block}.{scan}.conv2d.bias": (inner,),
                f"{block}.{scan}.out_proj.weight": (width, inner),
            }
        return shapes

    first = dims[0]
    shapes = {"patch_embed.proj.weight": (first, in_chans, 4, 4), "patch_embed.proj.bias": (first,)}
    shapes |= norm("patch_embed.norm", first) | norm("final_up.norm", first // 4)
    shapes |= {"final_up.expand.weight": (4 * first, first)}
    shapes |= {"final_conv.weight": (classes, first // 4, 1, 1), "final_conv.bias": (classes,)}
    for i, (depth, width) in enumerate(zip(depths, dims, strict=True)):
        shapes |= blocks(f"layers.{i}", depth, width)
        if width != dims[-1]:
            shapes |= norm(f"layers.{i}.downsample.norm", 4 * width)
            shapes |= {f"layers.{i}.downsample.reduction.weight": (2 * width, 4 * width)}
    for i, (depth, width) in enumerate(zip(depths_decoder, dims[::-1], strict=True)):
        shapes |= blocks(f"layers_up.{i}", depth, width)
        if i:
            shapes |= norm(f"layers_up.{i}.upsample.norm", width)
            shapes |= {f"layers_up.{i}.upsample.expand.weight": (4 * width, 2 * width)}
    return shapes


class SlowUnet:
    """The network again, one position after the other."""

    def __init__(self, slow, state):
        self.slow, self.state = slow, state

    def norm(self, name, x):
        return self.slow.layer_norm(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def block(self, name, image):
        scan = f"{name}.self_attention."
        x, gate = np.split(
            self.norm(f"{name}.ln_1", image) @ self.state[scan + "in_proj.weight"].T, 2, -1
        )
        kernel, (rows, columns, inner) = self.state[scan + "conv2d.weight"], x.shape
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        mixed = np.empty_like(x)
        for i in range(rows):
            for j in range(columns):
                around = padded[i : i + 3, j : j + 3]
                mixed[i, j] = (around * kernel[:, 0].transpose(1, 2, 0)).sum((0, 1))
        mixed = self.slow.silu(mixed + self.state[scan + "conv2d.bias"])
        by_row = [(i, j) for i in range(rows) for j in range(columns)]
        by_column = [(i, j) for j in range(columns) for i in range(rows)]
        total = np.zeros_like(mixed)
        for k, order in enumerate((by_row, by_column, by_row[::-1], by_column[::-1])):
            channels = slice(k * inner, (k + 1) * inner)
            y = self.slow.scan(
                np.stack([mixed[place] for place in order]),
                to_parts=self.state[scan + "x_proj_weight"][k],
                to_step=self.state[scan + "dt_projs_weight"][k],
                step_bias=self.state[scan + "dt_projs_bias"][k],
                log_rates=self.state[scan + "A_logs"][channels],
                skip=self.state[scan + "Ds"][channels],
            )
            for place, value in zip(order, y, strict=True):
                total[place] += value
        gated = self.norm(scan + "out_norm", total) * self.slow.silu(gate)
        return image + gated @ self.state[scan + "out_proj.weight"].T

    def merge(self, name, x):
        out = np.empty((x.shape[0] // 2, x.shape[1] // 2, 2 * x.shape[2]))
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                corners = [x[2 * i + row, 2 * j + col] for col in (0, 1) for row in (0, 1)]
                merged = self.norm(f"{name}.norm", np.concatenate(corners))
                out[i, j] = self.state[f"{name}.reduction.weight"] @ merged
        return out

    def expand(self, name, x, factor):
        width = len(self.state[f"{name}.norm.weight"])
        out = np.empty((x.shape[0] * factor, x.shape[1] * factor, width))
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                cell = (i % factor) * factor + j % factor
                rows = self.state[f"{name}.expand.weight"][cell * width : (cell + 1) * width]
                out[i, j] = rows @ x[i // factor, j // factor]
        return self.norm(f"{name}.norm", out)

    def __call__(self, image):
        state = self.state
        x = self.slow.patches(
            image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
        )
        fine = self.norm("patch_embed.norm", x)
        middle = self.merge("layers.0.downsample", self.block("layers.0.blocks.0", fine))
        coarse = self.merge("layers.1.downsample", self.block("layers.1.blocks.0", middle))
        x = self.block("layers_up.0.blocks.0", self.block("layers.2.blocks.0", coarse))
        for i, skip in ((1, coarse), (2, middle)):
            x = self.block(
                f"layers_up.{i}.blocks.0", self.expand(f"layers_up.{i}.upsample", x + skip, 2)
            )
        x = self.expand("final_up", x, 4)
        planes = x @ state["final_conv.weight"][:, :, 0, 0].T + state["final_conv.bias"]
        return planes.transpose(2, 0, 1)


def test_slow_arithmetic_gives_the_same(slow, randomised):
    model = randomised(small())
    images = torch.rand(2, 2, 16, 32, dtype=torch.float64)
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    expected = np.stack([SlowUnet(slow, state)(image) for image in images.numpy()])
    # SS2D keeps the rates of the recurrence in float32
    np.testing.assert_allclose(model(images).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("variant", "parameters"), PUBLISHED.items())
def test_published_parameter_counts(variant, parameters):
    with torch.device("meta"):
        model = mamba_unet(variant, num_classes=1)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_names_and_shapes(variant):
    with torch.device("meta"):
        state = mamba_unet(variant, num_classes=9).state_dict()
    expected = published_shapes(**VARIANTS[variant], classes=9)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_nano_is_small():
    assert sum(p.numel() for p in mamba_unet("nano", num_classes=2).parameters()) < 1e6


@pytest.mark.parametrize("size", [(64, 64), (128, 80), (16, 16)])
def test_planes_have_the_size_of_the_image(size):
    model = mamba_unet("nano", num_classes=3, in_chans=1).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 1, *size)).shape == (2, 3, *size)


def test_expanding_puts_each_cell_in_its_place():
    layer = PatchExpand(2, 3, factor=2)
    torch.nn.init.zeros_(layer.expand.weight)
    layer.expand.weight.data[6] = 1  # cell 2: lower left
    x = torch.ones(1, 1, 2, 2)
    lit = layer(x).abs().amax(dim=-1)[0] > 0.5
    assert lit.tolist() == [[False] * 4, [True, False, True, False]]


def test_skips_carry_what_the_coarse_stages_lose():
    """With the scans off, all but one path cut, an edge still arrives through the first skip."""
    model = small()
    for stage in (*model.layers, *model.layers_up):
        for block in stage.blocks:
            torch.nn.init.zeros_(block.self_attention.out_proj.weight)
    images = torch.rand(1, 2, 32, 32)
    whole = model(images)
    torch.nn.init.zeros_(model.layers[1].downsample.reduction.weight)  # nothing reaches the bottom
    cut = model(images)
    assert cut.std(dim=(2, 3)).min() > 0
    assert not torch.allclose(whole, cut)
    torch.nn.init.zeros_(model.layers[0].downsample.reduction.weight)  # nor the middle
    assert model(images).unflatten(2, (8, 4)).unflatten(4, (8, 4)).std(dim=(2, 4)).max() < 1e-6


def test_sample_does_not_depend_on_its_batch(randomised):
    model, images = randomised(small()), torch.rand(4, 2, 16, 32, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    assert torch.allclose(model(images), alone, rtol=1e-10, atol=1e-10)


def test_every_pixel_has_a_finite_gradient():
    model, images = small(), torch.rand(1, 2, 32, 16, requires_grad=True)
    model(images).square().sum().backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad != 0).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 28, 32), r"multiples of 16 pixels; got shape \(1, 2, 28, 32\)"),
        ((1, 2, 32, 8), "3 stages need images whose height and width are multiples of 16 pixels"),
        ((1, 2, 0, 16), "multiples of 16"),
        ((1, 3, 32, 32), r"expected images \(batch, 2, height, width\); got shape \(1, 3, 32, 32"),
        ((2, 32, 32), "expected images"),
    ],
)
def test_unfit_images_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.rand(shape))


@pytest.mark.parametrize(
    "changes",
    [{"dims": (8, 16, 24)}, {"depths": (1, 1)}, {"depths_decoder": (1,)}, {"dims": (6, 12, 24)}],
)
def test_unfit_widths_are_refused(changes):
    with pytest.raises(ValueError, match="as many depths on either side as widths"):
        small(**changes)


def test_unknown_variant_offers_the_nearest():
    with pytest.raises(UnknownComponent, match="no Mamba U-Net variant 'nan'; did you mean 'nano'"):
        mamba_unet("nan", num_classes=2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {f"vmunet.{k}": v for k, v in s.items()} | {"vmunet.total_ops": torch.zeros(1)},
        lambda s: {"model_state_dict": {f"vmunet.{k}": v for k, v in s.items()}, "epoch": 300},
    ],
)
def test_official_layouts_load(wrap):
    shapes = published_shapes(**VARIANTS["nano"], classes=2)
    source = {name: torch.randn(shape) for name, shape in shapes.items()}
    model = mamba_unet("nano", num_classes=2)
    model.load_state_dict(official_state(wrap(source)), strict=True)
    assert all(torch.equal(tensor, source[name]) for name, tensor in model.state_dict().items())


def test_no_state_dict_is_refused():
    with pytest.raises(CheckpointError, match="Mamba U-Net: expected a mapping of names to tensor"):
        official_state({"epoch": 3, "optimizer": {}})


def test_stochastic_depth_rises_to_the_bottom_and_falls_again():
    model = small(depths=(1, 2, 1), depths_decoder=(2, 1, 1), drop_path_rate=0.3)
    rates = [
        [[b.drop_path.probability for b in stage.blocks] for stage in side]
        for side in (model.layers, model.layers_up)
    ]
    flat = [[rate for stage in side for rate in stage] for side in rates]
    assert flat == [pytest.approx([0, 0.1, 0.2, 0.3]), pytest.approx([0.3, 0.2, 0.1, 0])]
    images = torch.rand(8, 2, 16, 16)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_decay_excludes_only_parameters_of_the_scan():
    model = small()
    names = {name.rpartition(".")[2] for name in model.no_weight_decay()}
    assert names == {"A_logs", "Ds", "dt_projs_bias"}


def test_fault_replay_is_bit_identical(agree):
    net = small(depths=(1, 1), depths_decoder=(1, 1), dims=(8, 16))
    task, shape = Segmentation(("a", "b", "c")), (2, 2, 16, 24)
    tensors = len(net.state_dict())
    every = WeightBitFlip(trials=tensors, scope="tensor", bits="exponent")
    assert agree(every, net, task, shape) == []
    assert agree(WeightBitFlip(trials=15, flips=3), net, task, shape) == []
