"""Other wordings of the data as questions."""

import dataclasses

import pytest

from palpate.attacks.prompt_wording import PromptWording
from palpate.contracts.oracles import batch
from palpate.contracts.prompted import prompted, with_questions
from palpate.errors import ConfigError
from palpate.seeds import Seeds


def given(**wordings):
    questions = with_questions(batch(3))
    return dataclasses.replace(questions, wordings=wordings)


def test_one_kind_is_asked_as_it_is():
    texts = ("a", "b", "c")
    with PromptWording().applied(prompted(), given(c1=texts), seeds=Seeds()) as world:
        assert world.batch.prompts == texts


def test_of_several_kinds_each_sample_gets_its_worst():
    target = prompted()
    one, two = ("polyp", "polyp", "polyp"), ("zzz", "yyy", "xxx")
    data = given(c1=one, c2=two)
    from palpate.scoring import scores

    def score(texts):
        return scores(target.predict(data.with_prompts(texts)), data.references).tolist()

    worst = PromptWording(kinds=("c1", "c2"))(target, data)

    assert score(worst) == [min(pair) for pair in zip(score(one), score(two), strict=True)]


def test_a_kind_that_the_data_does_not_have_is_named():
    with pytest.raises(ConfigError, match=r"wordings \(c1\), got 'p9'"):
        PromptWording(kinds=("p9",))(prompted(), given(c1=("a", "b", "c")))


def test_no_kind_is_refused():
    with pytest.raises(ConfigError, match="one or more kinds"):
        PromptWording(kinds=())
