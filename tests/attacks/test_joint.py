"""Image and question together are never weaker than either alone, and keep both budgets."""

import pytest
import torch

from palpate.attacks.joint import Joint
from palpate.attacks.pgd import Pgd
from palpate.attacks.prompt_exchange import PromptExchange
from palpate.contracts.oracles import batch, probe
from palpate.contracts.prompted import prompted, with_questions
from palpate.errors import CapabilityError, ConfigError
from palpate.scoring import scores
from palpate.seeds import Seeds

EPSILON = 0.05


def mean(target, given):
    return float(scores(target.predict(given), given.references).mean())


def entered(attack, target, given):
    with attack.applied(target, given, seeds=Seeds()) as world:
        return world.batch


@pytest.mark.parametrize("turns", [1, 2])
def test_budgets_are_kept_and_both_together_are_no_weaker(turns):
    target, given = prompted(), with_questions(batch(6))
    attack = Joint(epsilon=EPSILON, steps=5, tokens=2, turns=turns)
    found = entered(attack, target, given)

    assert float((found.images - given.images).abs().max()) <= EPSILON + 1e-6
    for new, old in zip(found.prompts, given.prompts, strict=True):
        assert len(new) == len(old)
        assert sum(a != b for a, b in zip(new, old, strict=True)) <= 2
    image = entered(Pgd(epsilon=EPSILON, steps=5), target, given)
    text = given.with_prompts(PromptExchange(tokens=2)(target, given))
    assert mean(target, found) <= mean(target, image)
    assert mean(target, found) < mean(target, text)


def test_no_budget_changes_nothing():
    target, given = prompted(), with_questions(batch(3))
    found = entered(Joint(epsilon=0.0, tokens=0), target, given)

    assert torch.equal(found.images, given.images)
    assert found.prompts == given.prompts


def test_a_task_without_questions_is_refused():
    with pytest.raises(CapabilityError, match="PromptedSegmentation"):
        Joint().check(probe())


@pytest.mark.parametrize("bad", [{"turns": 0}, {"epsilon": -1.0}, {"steps": 0}, {"tokens": -1}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        Joint(**bad)
