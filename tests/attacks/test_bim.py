import pytest
import torch

from palpate.attacks.bim import Bim
from palpate.attacks.pgd import Pgd
from palpate.errors import ConfigError


def test_last_iterate_equals_torchattacks_exactly(few):
    import torchattacks

    target, images, labels = few
    last = Bim(epsilon=8 / 255, step_size=2 / 255, steps=10).search(target, images, labels).last

    peer = torchattacks.PGD(few.network, eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)
    assert torch.equal(last, peer(images, labels))


def test_is_pgd_without_a_random_start(few):
    target, images, labels = few
    for norm, epsilon in (("linf", 2 / 255), ("l2", 0.5)):
        bim = Bim(epsilon=epsilon, norm=norm, steps=3)
        pgd = Pgd(epsilon=epsilon, norm=norm, steps=3, step_size=epsilon / 3, random_start=False)
        assert torch.equal(bim(target, images, labels), pgd(target, images, labels))


@pytest.mark.parametrize("options", [{"steps": 0}, {"step_size": 0.0}])
def test_a_loop_that_cannot_run_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Bim(**options)
