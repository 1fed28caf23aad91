"""Exchange of tokens by gradient, against brute force on a model that is linear in its words."""

import dataclasses
import string

import pytest
import torch
from torch import nn

from palpate.attacks.prompt_exchange import PromptExchange
from palpate.contracts.oracles import batch
from palpate.contracts.prompted import Letters, prompted, with_questions
from palpate.errors import CapabilityError, ConfigError
from palpate.outcome import Status
from palpate.scoring import scores
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import PromptedSegmentation


class Sum(nn.Module):
    """The logit of each pixel is the pixel plus the sum of one number per letter."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(29, 1)
        with torch.no_grad():
            values = torch.randn(29, 1, generator=torch.Generator().manual_seed(4)) / 4
            values[:2] = 0.0
            self.words.weight.copy_(values)

    def forward(self, images, tokens):
        return images[:, :1] - 0.5 + self.words(tokens).sum(dim=1)[:, :, None, None]


def linear():
    return Target(Sum().eval(), PromptedSegmentation(), tokenizer=Letters())


def asked():
    given = with_questions(batch(3))
    full = torch.ones_like(given.references)
    return dataclasses.replace(given, references=full, prompts=("polyp", "mass", "cyst"))


def score(target, given, texts):
    return scores(target.predict(given.with_prompts(tuple(texts))), given.references).tolist()


def test_one_exchange_is_the_best_of_all():
    target, given = linear(), asked()
    found = PromptExchange(tokens=1)(target, given)

    for row, text in enumerate(given.prompts):
        every = [
            text[:i] + letter + text[i + 1 :]
            for i in range(len(text))
            for letter in (*string.ascii_lowercase, " ")
        ]
        one = dataclasses.replace(
            given,
            images=given.images[row : row + 1].expand(len(every), -1, -1, -1),
            references=given.references[row : row + 1].expand(len(every), -1, -1, -1),
            samples=tuple(map(str, range(len(every)))),
        )
        least = min(score(target, one, every))
        assert score(target, given, found)[row] == pytest.approx(least)


def test_the_budget_is_kept_and_more_of_it_is_never_weaker():
    target, given = linear(), asked()
    before = [1.0] * len(given)
    for tokens in (1, 2, 3):
        found = PromptExchange(tokens=tokens)(target, given)
        changed = [
            sum(a != b for a, b in zip(new, old, strict=True))
            for new, old in zip(found, given.prompts, strict=True)
        ]
        assert max(changed) <= tokens
        after = score(target, given, found)
        assert all(a <= b for a, b in zip(after, before, strict=True))
        before = after
    assert max(before) < 0.2


def test_no_budget_changes_nothing():
    assert PromptExchange(tokens=0)(linear(), asked()) == asked().prompts


def test_a_search_that_finds_nothing_worse_has_still_searched():
    target = linear()
    with torch.no_grad():
        target.module.words.weight.zero_()  # no letter matters
    with PromptExchange().applied(target, asked(), seeds=Seeds()) as world:
        assert world.status == (Status.OK,) * 3
        assert all(
            new != old for new, old in zip(world.batch.prompts, asked().prompts, strict=True)
        )


def test_what_is_found_reads_back_as_it_was_meant():
    # a tokenizer that cannot say "z" again: no question may hang on it
    class Lossy(Letters):
        def text(self, ids):
            return super().text(ids).replace("z", "")

    target = dataclasses.replace(linear(), tokenizer=Lossy())
    with torch.no_grad():
        target.module.words.weight[Letters()(["z"])[0, 0]] = -50.0  # the best by far
    found = PromptExchange(tokens=1)(target, asked())

    assert not any("z" in text for text in found)
    assert found != asked().prompts


def test_leaves_no_hook_and_no_gradient():
    target = prompted()
    PromptExchange(tokens=2)(target, with_questions(batch(2)))

    assert all(not m._forward_hooks for m in target.module.modules())
    assert all(p.grad is None and p.requires_grad for p in target.module.parameters())


def test_a_tokenizer_that_cannot_go_back_is_refused():
    target = dataclasses.replace(linear(), tokenizer=lambda texts: Letters()(texts))

    with pytest.raises(CapabilityError, match=r"text\(ids\) and special"):
        PromptExchange().check(target)


def test_a_module_without_an_embedding_is_named():
    class Bare(nn.Module):
        def forward(self, images, tokens):
            return images[:, :1] + tokens.sum()

    target = Target(Bare().eval(), PromptedSegmentation(), tokenizer=Letters())
    with pytest.raises(CapabilityError, match="looks its tokens up"):
        PromptExchange()(target, asked())


@pytest.mark.parametrize("bad", [{"tokens": -1}, {"tries": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="prompt_exchange: expected tokens"):
        PromptExchange(**bad)
