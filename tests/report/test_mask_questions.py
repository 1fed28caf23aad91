import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from palpate.report.mask_questions import fisher, mask_questions, spearman
from palpate.report.questions import questions
from palpate.statistics.paired import paired
from palpate.statistics.summary import summarise

MODELS = ("small", "middle", "large")
SIZES = {"small": 10_000, "middle": 100_000, "large": 1_000_000}
LOSSES = ("dice_ce", "bce")


@pytest.fixture
def masks(synthetic, tmp_path):
    def made(targets=MODELS, kind="segmentation"):
        classes = ("background", "lesion")
        return synthetic.Maker(tmp_path, targets=targets, classes=classes, kind=kind)

    return made


def cell(maker, target, name="none", *, dice, **setting):
    """A cell whose Dice is `dice`, give or take what the image adds."""
    family = "none" if name == "none" else "attacks"
    rows = [
        maker.outcome(i, right=True, score=float(np.clip(dice + 0.05 * np.sin(i), 0, 1)))
        for i in range(maker.cases)
    ]
    given = {"norm": "linf", **setting} if setting else {}
    maker.cell(target, family, name, setting=given, outcomes=rows)


def fgsm(maker, target, dice, epsilon=0.009, **setting):
    usual = {"loss": "dice_ce", "swap_arguments": False, "update": "add"}
    cell(maker, target, "fgsm", dice=dice, epsilon=epsilon, **{**usual, **setting})


def asked(maker, *, card="dice_ce"):
    trained = None if card is None else {"recipe": {"loss": card}}
    targets = [
        {"label": t, "digest": "a", "parameters": SIZES[t], "source": {}, "card": trained}
        for t in maker.targets
    ]
    record = maker.write(targets=targets)
    summary = summarise(record)
    found = questions(record, summary, paired(record))
    ours = {text for text, _ in mask_questions(record, summary)}
    return {q.text: {a.who: a for a in q.answers} for q in found if q.text in ours}


def answers(maker, start, **options):
    (found,) = [a for text, a in asked(maker, **options).items() if start in text]
    return found


@pytest.mark.parametrize(
    ("other", "verdict"), [(0.3, "yes, bce"), (0.7, "no"), (0.5, "cannot tell")]
)
def test_another_loss_is_judged_by_the_paired_interval(masks, other, verdict):
    maker = masks(("small",))
    cell(maker, "small", dice=0.8)
    for epsilon in (0.003, 0.009):
        fgsm(maker, "small", 0.5, epsilon)
        fgsm(maker, "small", other, epsilon, loss="bce")
    found = answers(maker, "other than the training loss")["small, corrected"]
    assert found.verdict == verdict
    assert "relative drop by dice_ce 37.4" in found.text
    assert "at 0.003" in found.text
    if other == 0.3:
        assert "by bce 62.4" in found.text
        assert "beside dice_ce −20.0\u00a0pp [−20.0, −20.0] in all" in found.text


def test_each_order_has_its_own_answer(masks):
    """As published bce wins because the swapped training loss helps the model."""
    maker = masks(("small", "large"))
    for model in maker.targets:
        cell(maker, model, dice=0.7)
        for swap, update in ((True, "blend"), (False, "add")):
            how = {"swap_arguments": swap, "update": update}
            fgsm(maker, model, 0.9 if swap else 0.2, **how)
            fgsm(maker, model, 0.4, **how, loss="bce")
    found = answers(maker, "other than the training loss")
    assert found["small, as published"].verdict == "yes, bce"
    assert found["small, corrected"].verdict == "no"
    assert found["all models together, as published"].verdict == "yes, bce"
    assert found["all models together, corrected"].verdict == "no"
    assert next(iter(found)).startswith("all models together")


def test_without_a_card_the_training_loss_is_unknown(masks):
    maker = masks(("small",))
    cell(maker, "small", dice=0.8)
    for loss in LOSSES:
        fgsm(maker, "small", 0.5, loss=loss)
    assert asked(maker, card=None) == {}


def test_a_recipe_says_cross_entropy_where_an_attack_says_ce(masks):
    maker = masks(("small",))
    cell(maker, "small", dice=0.8)
    for loss in ("ce", "bce"):
        fgsm(maker, "small", 0.5, loss=loss)
    found = answers(maker, "other than the training loss", card="cross_entropy")
    assert found["small, corrected"].text.startswith("relative drop by ce ")


@pytest.mark.parametrize(("swapped", "verdict"), [(0.9, "yes"), (0.1, "no, the reverse")])
def test_order_of_the_arguments(masks, swapped, verdict):
    maker = masks()
    for model in MODELS:
        cell(maker, model, dice=0.7)
        fgsm(maker, model, 0.4)
        fgsm(maker, model, swapped, swap_arguments=True)
    found = answers(maker, "published order")["dice_ce"]
    assert found.verdict == verdict
    assert "over all models; small" in found.text


@pytest.mark.parametrize(("blend", "verdict"), [(0.3, "yes"), (0.4, "cannot tell")])
def test_blending(masks, blend, verdict):
    maker = masks()
    for model in MODELS:
        cell(maker, model, dice=0.7)
        for swap, update in itertools.product((False, True), ("add", "blend")):
            dice = blend if update == "blend" else 0.4
            fgsm(maker, model, dice, swap_arguments=swap, update=update)
    found = answers(maker, "blending")
    assert {who: a.verdict for who, a in found.items()} == {
        "exchanged arguments": verdict,
        "right order": verdict,
    }


def test_the_strongest_attack_beats_every_other(masks):
    maker = masks()
    for number, model in enumerate(MODELS):
        cell(maker, model, dice=0.7)
        fgsm(maker, model, 0.5)
        how = {"loss": "dice_ce", "swap_arguments": False, "update": "add", "steps": 20}
        cell(maker, model, "pgd", dice=0.3, epsilon=0.009, **how)
        cell(maker, model, "sea", dice=0.1 if number else 0.3, epsilon=0.009, steps=5)
    found = answers(maker, "hurts most")
    assert found["small"].verdict == "cannot tell"
    assert found["middle"].verdict == "SEA"
    assert found["all models together"].verdict == "SEA"
    assert "PGD less FGSM −20.0" in found["middle"].text


def test_three_points_say_little_about_size(masks):
    maker = masks()
    for model, dice in zip(MODELS, (0.2, 0.3, 0.4), strict=True):
        cell(maker, model, dice=0.7)
        fgsm(maker, model, dice)
    found = answers(maker, "size protect")["FGSM, corrected"]
    assert found.verdict == "cannot tell"
    assert "Spearman −1.00 (p 0.33)" in found.text
    assert "[−1.00, +1.00]; 3 points say little" in found.text


def test_rank_correlation_is_exact_for_few_points():
    rng = np.random.default_rng(1)
    for n in (5, 30):
        a = rng.random(n)
        b = a + rng.random(n)
        ours, p = spearman(a, b)
        theirs = spearmanr(a, b)
        assert ours == pytest.approx(theirs.statistic)
        assert p == pytest.approx(theirs.pvalue, abs=0.06 if n == 5 else 1e-9)
    assert spearman(np.arange(5), np.arange(5))[1] == pytest.approx(2 / 120)


def test_interval_of_a_correlation():
    low, high = fisher(0.5, 28, confidence=0.95)
    assert (low, high) == pytest.approx((0.156, 0.736), abs=1e-3)
    assert fisher(0.99, 3, confidence=0.95) == (-1.0, 1.0)


def test_classification_asks_none_of_it(masks):
    maker = masks(("small",), kind="classification")
    cell(maker, "small", dice=0.8)
    fgsm(maker, "small", 0.5)
    record = maker.write()
    assert mask_questions(record, summarise(record)) == ()
