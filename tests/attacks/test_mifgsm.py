import pytest
import torch

from palpate.attacks.bim import Bim
from palpate.attacks.mifgsm import Mifgsm
from palpate.errors import ConfigError


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_last_iterate_equals_torchattacks_exactly(few, decay):
    import torchattacks

    target, images, labels = few
    attack = Mifgsm(epsilon=8 / 255, step_size=2 / 255, steps=10, decay=decay)
    last = attack.search(target, images, labels).last

    peer = torchattacks.MIFGSM(few.network, eps=8 / 255, alpha=2 / 255, steps=10, decay=decay)
    assert torch.equal(last, peer(images, labels))


def test_without_momentum_it_is_bim(few):
    target, images, labels = few

    assert torch.equal(Mifgsm(decay=0.0)(target, images, labels), Bim()(target, images, labels))


def test_negative_decay_is_refused():
    with pytest.raises(ConfigError, match="decay: expected 0 or more, got -1"):
        Mifgsm(decay=-1.0)
