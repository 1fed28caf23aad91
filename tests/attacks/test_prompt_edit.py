"""Edits of the question: what each kind makes, and that the worst is kept."""

import dataclasses

import pytest
import torch
from torch import nn

from palpate import registry
from palpate.attacks.prompt_edit import PromptEdit
from palpate.contracts.oracles import batch, probe
from palpate.contracts.prompted import Letters, prompted, with_questions
from palpate.errors import CapabilityError, ConfigError
from palpate.outcome import Status
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import PromptedSegmentation


class Wants(nn.Module):
    """Draws the whole mask when the question has the letters of a word, else nothing."""

    def __init__(self, letter):
        super().__init__()
        self.wanted = Letters()([letter])[0, 0]
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images, tokens):
        found = (tokens == self.wanted).any(dim=1).float() * 2 - 1
        return found.reshape(-1, 1, 1, 1) * self.scale * torch.ones_like(images[:, :1])


def asked(*texts):
    given = with_questions(batch(len(texts)))
    full = torch.ones_like(given.references)
    return dataclasses.replace(given, prompts=texts, references=full)


def edited(text, **settings):
    return PromptEdit(**settings)._edited(text, 3)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("negation", "polyp", ["no polyp", "without polyp"]),
        ("organ", "a polyp in an endoscopy image", ["skin mole", "breast mass"]),
        ("location", "polyp at the top left", ["polyp at the bottom right"]),
        ("location", "Polyp", []),
        ("truncation", "small breast lesion", ["small breast"]),
        ("truncation", "polyp", []),
        ("empty", "polyp", [""]),
        ("synonym", "skin lesion", ["skin abnormality", "cutaneous lesion", "skin finding"]),
        ("synonym", "whatsit", []),
    ],
)
def test_what_each_kind_makes(kind, text, expected):
    made = edited(text, kind=kind)

    assert set(expected) <= set(made)
    assert bool(made) == bool(expected)
    assert text not in made
    assert len(made) == len(set(made)) <= PromptEdit().queries


def test_no_other_organ_is_one_that_the_question_is_about():
    assert not any("skin" in text for text in edited("skin lesion", kind="organ"))
    assert not any("colon" in text for text in edited("polyp", kind="organ"))


def test_a_word_inside_another_is_left_alone():
    assert edited("bright spot", kind="location") == []


def test_typing_errors_stay_inside_words_and_within_the_budget():
    text = "small breast lesion"
    made = edited(text, kind="typo", edits=1, queries=40)

    assert len(made) > 5
    for new in made:
        pairs = list(zip(text.split(), new.split(), strict=True))
        changed = [(a, b) for a, b in pairs if a != b]
        assert len(changed) == 1
        assert all(
            a[0] == b[0] and a[-1] == b[-1] and abs(len(a) - len(b)) <= 1 for a, b in changed
        )


def test_two_synonyms_exchange_two_words():
    made = edited("skin lesion", kind="synonym", edits=2, queries=50)

    assert "cutaneous finding" in made
    assert "cutaneous lesion" in made


def test_the_worst_question_is_kept():
    target = Target(Wants("z").eval(), PromptedSegmentation(), tokenizer=Letters())
    given = asked("zebra mass", "zebra zoo")
    texts = PromptEdit(kind="truncation", edits=1)(target, given)
    assert texts == ("zebra", "zebra")

    # "tumor mass" has no z at all, and "z mass" loses it only when its first word goes
    worst = PromptEdit(kind="synonym", edits=1)(
        Target(Wants("f").eval(), PromptedSegmentation(), tokenizer=Letters()), asked("finding")
    )
    assert worst == ("lesion",) or worst == ("abnormality",)
    assert "f" not in worst[0]


def test_who_has_nothing_to_change_is_said_not_to_move():
    target, given = prompted(), asked("polyp", "left polyp")
    with PromptEdit(kind="location").applied(target, given, seeds=Seeds()) as world:
        assert world.status == (Status.NO_MOVE, Status.OK)
        assert world.batch.prompts == ("polyp", "right polyp")
        assert world.batch.images is given.images


def test_a_task_without_questions_is_refused():
    with pytest.raises(CapabilityError, match="expected a task of PromptedSegmentation, got Class"):
        PromptEdit().check(probe())


@pytest.mark.parametrize("bad", [{"edits": 0}, {"queries": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="edits and queries of 1 or more"):
        PromptEdit(**bad)


def test_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="kind"):
        registry.create("attacks", "prompt_edit", {"kind": "sarcasm"})


def test_only_what_means_something_else_says_so():
    kinds = ("synonym", "typo", "truncation", "empty", "location", "negation", "organ")
    meant = {kind for kind in kinds if PromptEdit(kind=kind).changes_meaning}

    assert meant == {"empty", "location", "negation", "organ"}
