import copy

import pytest
import torch
from torch import nn

from palpate.faults import _bits
from palpate.targets.base import Target
from palpate.types import Batch, Classification


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def wrap():
    def make(net, shape, classes=10, seed=0):
        generator = torch.Generator().manual_seed(seed)
        names = tuple(f"s{i}" for i in range(shape[0]))
        batch = Batch(
            images=torch.rand(shape, generator=generator),
            references=torch.zeros(shape[0], dtype=torch.long),
            samples=names,
            cases=names,
            sites=("",) * shape[0],
        )
        return Target(net.eval(), Classification(tuple(map(str, range(classes))))), batch

    return make


@pytest.fixture
def naive():
    """Logits of a deep copy in which the noted sites are flipped, run in full."""

    def run(target, batch, notes):
        net = copy.deepcopy(target.module)
        stored = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        for site in notes["sites"]:
            tensor = stored[site["tensor"]]
            weights = tensor.detach().view(_bits.format_named(site["format"]).view)
            one = torch.ones((), dtype=weights.dtype)
            weights[tuple(site["index"])] ^= torch.bitwise_left_shift(one, site["bit"])
        try:
            return target.with_module(net).predict(batch).logits
        except IndexError:  # a crash counts as a non-finite answer
            return torch.full_like(target.predict(batch).logits, torch.nan)

    return run


@pytest.fixture
def agree(naive):
    """The notes of trials that differ in any bit from deep-copy-and-run."""

    def run(fault, target, batch):
        seeds = fault.seeds(0)
        inside = []
        with fault.prepared(target, batch) as enter:
            for trial in range(fault.repeats):
                with enter(seeds.at(trial)) as world:
                    inside.append((world.target.predict(world.batch).logits, world.notes))
        expected = [naive(target, batch, notes) for _, notes in inside]
        return [
            notes
            for (logits, notes), other in zip(inside, expected, strict=True)
            if not _bits.equal(logits, other)
        ]

    return run


class TwoEncoders(nn.Module):
    """Image features are scaled by what an encoder makes of a learnt prompt; a dict comes out."""

    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3))
        self.prompt = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        self.text = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.mix = nn.Linear(4, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        features = self.image(x).mean(dim=(2, 3))
        features *= self.mix(self.text(self.prompt[None]).mean(dim=1))
        return {"logits": self.head(features)}


class SmallUnet(nn.Module):
    """Skip connections, an upsampling path, tuple outputs between modules, pooled to logits."""

    class Down(nn.Module):
        def __init__(self, width, out):
            super().__init__()
            self.conv = nn.Conv2d(width, out, 3, padding=1)
            self.norm = nn.BatchNorm2d(out)
            self.act = nn.ReLU(inplace=True)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            skip = self.act(self.norm(self.conv(x)))
            return self.pool(skip), skip

    def __init__(self):
        super().__init__()
        self.one, self.two = self.Down(3, 4), self.Down(4, 8)
        self.base = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GELU())
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.out = nn.Conv2d(16, 4, 3, padding=1)
        self.last = nn.Conv2d(8, 10, 1)

    def forward(self, x):
        x, first = self.one(x)
        x, second = self.two(x)
        x = self.out(torch.cat([self.up(self.base(x)), second], dim=1))
        x = nn.functional.interpolate(x, scale_factor=2)
        return self.last(torch.cat([x, first], dim=1)).mean(dim=(2, 3))


class Awkward(nn.Module):
    """Tied weights, a module called twice, dropout, in-place calls, a hook that keeps results."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.twice = nn.Conv2d(10, 10, 3, padding=1, groups=2)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.tied = nn.Linear(10, 10)
        self.head = nn.Linear(10, 10, bias=False)
        self.head.weight = self.tied.weight
        self.register_buffer("order", torch.arange(10).flip(0))
        self.tied.seen = []
        self.tied.register_forward_hook(lambda module, args, result: module.seen.append(result))

    def forward(self, x):
        x = self.stem(x)
        y = self.twice(x)
        self.relu(y)
        y = self.twice(self.drop(y)) + x
        self.tied.seen.clear()
        y = self.tied(y.mean(dim=(2, 3)))
        return self.head(self.tied.seen[0] * y)[:, self.order]


class Remembers(nn.Module):
    """An encoder that leaves its features in attributes, where the decoder finds them."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.kept = None
            self.all = []

        def forward(self, x):
            self.kept = self.first(x)
            y = self.second(self.kept)
            self.all[:] = [y]
            return y.mean(dim=(2, 3))

    def __init__(self):
        super().__init__()
        self.encoder = self.Encoder()
        self.middle = nn.Linear(4, 4)
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        y = self.middle(self.encoder(x))
        kept = [self.encoder.kept.mean(dim=(2, 3)), self.encoder.all[0].amax(dim=(2, 3))]
        return self.head(torch.cat([y, *kept], dim=1))


@pytest.fixture
def nets():
    """Small networks by name, with the input shape of a batch."""
    import timm

    from palpate.models.medmamba import medmamba

    makers = {
        "resnet18": lambda: (_busy(timm.create_model("resnet18", num_classes=10)), (3, 3, 32, 32)),
        "vit": lambda: (
            timm.models.VisionTransformer(
                img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=10
            ),
            (3, 3, 16, 16),
        ),
        "medmamba": lambda: (medmamba("nano", num_classes=10), (2, 3, 16, 16)),
        "unet": lambda: (_busy(SmallUnet()), (2, 3, 16, 16)),
        "two_encoders": lambda: (TwoEncoders(), (3, 3, 16, 16)),
        "awkward": lambda: (Awkward(), (3, 3, 8, 8)),
        "remembers": lambda: (Remembers(), (3, 3, 8, 8)),
    }

    def make(name):
        torch.manual_seed(0)
        return makers[name]()

    return make


def _busy(net):
    """Batch norms that neither zero (as timm starts them) nor saturate what passes."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net
