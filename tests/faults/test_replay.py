import pytest
import torch
from torch import nn

from palpate.errors import ConfigError
from palpate.faults import _bits
from palpate.faults._replay import Replay, memory_limit
from palpate.faults.base import fingerprint
from palpate.faults.weight_bit_flip import WeightBitFlip

NETS = ["resnet18", "vit", "medmamba", "unet", "two_encoders", "awkward", "remembers"]


@pytest.mark.parametrize("name", NETS)
def test_replay_equals_a_deep_copy_run_in_full_bit_for_bit(name, nets, wrap, agree):
    target, batch = wrap(*nets(name))
    # every tensor once, with bits that matter
    tensors = len(dict(target.module.named_parameters())) + len(dict(target.module.named_buffers()))
    trials = min(tensors, 90)
    assert agree(WeightBitFlip(trials=trials, scope="tensor", bits="exponent"), target, batch) == []
    assert agree(WeightBitFlip(trials=20, flips=3), target, batch) == []


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("memory", [0, 20_000])
def test_a_memory_bound_changes_nothing_but_the_time(name, memory, nets, wrap, agree, monkeypatch):
    monkeypatch.setattr("palpate.faults._replay.memory_limit", lambda: memory)
    target, batch = wrap(*nets(name))
    assert agree(WeightBitFlip(trials=12, scope="layer", bits=(30,)), target, batch) == []
    replay = Replay(target, batch)
    assert replay.stored_bytes <= memory


def test_calls_before_the_fault_are_answered_from_memory(nets, wrap, monkeypatch):
    target, batch = wrap(*nets("resnet18"))
    net = target.module
    replay = Replay(target, batch)
    ran = []
    monkeypatch.setattr(
        nn.Conv2d,
        "forward",
        lambda self, x: ran.append(self) or self._conv_forward(x, self.weight, self.bias),
    )
    with replay.reading([("layer4.0.conv2.weight", net.layer4[0].conv2.weight)]):
        net.fc.bias.data[0] += 0  # nothing differs, so the first faulty call ends the trial
        target.predict(batch)
    assert ran == [net.layer4[0].conv2]


def test_another_input_or_a_gradient_is_answered_in_full(nets, wrap):
    target, batch = wrap(*nets("unet"))
    _, other = wrap(target.module, batch.images.shape, seed=1)
    expected = target.predict(other).logits
    replay = Replay(target, batch)
    with replay.reading([("last.bias", target.module.last.bias)]):
        assert _bits.equal(target.predict(other).logits, expected)
        images = batch.images.clone().requires_grad_()
        target.logits(images).sum().backward()
        assert images.grad.abs().sum() > 0


def test_all_patches_are_gone_afterwards_also_after_an_exception(nets, wrap):
    target, batch = wrap(*nets("awkward"))
    before = fingerprint(target.module)
    replay = Replay(target, batch)

    def fail():
        with replay.reading([("twice.weight", target.module.twice.weight)]):
            assert fingerprint(target.module) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert fingerprint(target.module) == before


def test_a_scripted_module_falls_back_to_full_passes(wrap):
    with pytest.warns(FutureWarning):
        net = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(12, 10)))
    target, batch = wrap(net, (2, 3, 2, 2))
    fault = WeightBitFlip(trials=3, bits=(31,))
    golden = target.predict(batch).logits
    with fault.prepared(target, batch) as enter, enter(fault.seeds(0)) as world:
        assert not _bits.equal(world.target.predict(batch).logits, golden)
    assert _bits.equal(target.predict(batch).logits, golden)


def test_the_memory_limit_is_a_number_of_mebibytes(monkeypatch):
    monkeypatch.setenv("PALPATE_REPLAY_MEMORY", "3")
    assert memory_limit() == 3 << 20
    monkeypatch.setenv("PALPATE_REPLAY_MEMORY", "3GB")
    with pytest.raises(ConfigError, match="expected a number of MiB, got '3GB'"):
        memory_limit()


def test_an_activation_in_place_is_answered_together_with_what_it_changes(nets, wrap, monkeypatch):
    target, batch = wrap(*nets("resnet18"))
    net = target.module
    replay = Replay(target, batch)
    ran = []
    real = nn.ReLU.forward
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: ran.append(self) or real(self, x))
    with replay.reading([("layer4.1.bn2.bias", net.layer4[1].bn2.bias)]):
        target.predict(batch)
    assert net.act1 not in ran
    assert net.layer4[1].act1 not in ran


class WritesIntoWhatItIsHanded(nn.Module):
    """Replaces an entry of its encoder's dict, as CLIPSeg of transformers 5 does."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)

        def forward(self, x):
            return {"pooled": self.conv(x).mean(dim=(2, 3))}

    def __init__(self):
        super().__init__()
        self.encoder = self.Encoder()
        self.projection = nn.Linear(6, 6)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        found = self.encoder(x)
        found["pooled"] = self.projection(found["pooled"])
        return self.head(found["pooled"])


def test_a_container_that_the_model_writes_into_is_handed_out_new(wrap, agree):
    torch.manual_seed(0)
    target, batch = wrap(WritesIntoWhatItIsHanded(), (2, 3, 8, 8))
    assert agree(WeightBitFlip(trials=40, tensors=("projection",)), target, batch) == []
