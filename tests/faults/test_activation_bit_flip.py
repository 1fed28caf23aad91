import copy
import json

import pytest
import torch

from palpate.errors import CapabilityError, ConfigError
from palpate.faults import _bits
from palpate.faults.activation_bit_flip import ActivationBitFlip


def naive(target, batch, site):
    """A deep copy with a hook that flips the noted bit in every sample."""
    net = copy.deepcopy(target.module)
    name, call, output = (
        site["layer"],
        int(site["tensor"].split(" call ")[1].split()[0]),
        int(site["tensor"].split(" output ")[1]),
    )
    seen = []

    def hook(module, args, result):
        seen.append(module)
        if len(seen) != call:
            return None
        parts = list(result) if isinstance(result, tuple) else [result]
        flipped = parts[output].clone()
        per_sample = flipped.reshape(len(batch), -1, *flipped.shape[1:])
        bits = _bits.integers(per_sample)
        mask = torch.ones((), dtype=bits.dtype) << site["bit"]
        bits[(slice(None), *site["index"])] ^= mask
        parts[output] = per_sample.reshape(flipped.shape)
        return tuple(parts) if isinstance(result, tuple) else parts[output]

    net.get_submodule(name).register_forward_hook(hook, prepend=True)
    return target.with_module(net).predict(batch).logits


@pytest.mark.parametrize(
    "name", ["resnet18", "vit", "medmamba", "unet", "two_encoders", "awkward", "remembers"]
)
def test_equals_a_hook_on_a_deep_copy_bit_for_bit(name, nets, wrap):
    target, batch = wrap(*nets(name))
    fault = ActivationBitFlip(trials=25, bits="exponent")
    seeds = fault.seeds(0)
    with fault.prepared(target, batch) as enter:
        trials = []
        for trial in range(fault.repeats):
            with enter(seeds.at(trial)) as world:
                trials.append((world.notes, world.target.predict(world.batch).logits))
    for notes, logits in trials:
        assert json.loads(json.dumps(notes)) == notes
        assert _bits.equal(logits, naive(target, batch, notes["sites"][0]))


def test_sites_do_not_depend_on_the_batch(nets, wrap):
    target, batch = wrap(*nets("two_encoders"))
    _, one = wrap(target.module, (1, 3, 16, 16))
    fault = ActivationBitFlip(trials=8)
    notes = []
    for b in (batch, one):
        with fault.prepared(target, b) as enter:
            for trial in range(8):
                with enter(fault.seeds(0).at(trial)) as world:
                    notes.append(world.notes)
    assert notes[:8] == notes[8:]
    assert {n["sites"][0]["layer"] for n in notes} == {"image.0", "image.1", "image.2", "head"}


def test_a_chosen_module_with_children(nets, wrap):
    target, batch = wrap(*nets("vit"))
    fault = ActivationBitFlip(trials=2, layers=("blocks.1",), bits=(30,))
    with fault.prepared(target, batch) as enter, enter(fault.seeds(0)) as world:
        assert world.notes["sites"][0]["layer"] == "blocks.1"
        assert world.target.predict(batch).logits.shape == (3, 10)


def test_wrong_settings(nets, wrap):
    target, _ = wrap(*nets("unet"))
    with pytest.raises(ConfigError, match=r"no module named 'two\.cov'; did you mean 'two.conv'"):
        ActivationBitFlip(layers=("two.cov",)).check(target)
    with pytest.raises(ConfigError, match="expected distinct bits between 0 and 63"):
        ActivationBitFlip(bits=(64,)).check(target)
    with pytest.raises(
        CapabilityError, match="activation_bit_flip: expected a target with weights"
    ):
        ActivationBitFlip().check(wrap(torch.nn.Flatten(), (1, 10))[0])


def test_a_module_asked_several_times_per_prediction_is_refused(wrap):
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(12, 10)

        def forward(self, images):
            if images.shape[0] > 2:
                return torch.cat([self(part) for part in images.split(2)])
            return self.layer(images.flatten(1))

    target, batch = wrap(Twice(), (4, 3, 2, 2))
    fault = ActivationBitFlip(trials=1)
    with (
        pytest.raises(CapabilityError, match="activations are not testable on it"),
        fault.prepared(target, batch) as enter,
        enter(fault.seeds(0)),
    ):
        pass
