import numpy as np
import pytest

from palpate.outcome import Status
from palpate.regions import Region
from palpate.report.page import render
from palpate.report.prompt_questions import prompt_questions
from palpate.report.published import published
from palpate.report.questions import questions
from palpate.statistics.paired import paired
from palpate.statistics.summary import summarise

EPSILONS = (0.01, 0.03, 0.1, 0.5)
LITERAL = {"norm": "linf_normalised", "step_size": 2 / 255, "double_sigmoid": True}
CORRECTED = {"norm": "linf", "loss": "dice_ce", "swap_arguments": False, "goal": "break"}


@pytest.fixture
def masks(synthetic, tmp_path):
    def made(kind="prompted_segmentation", targets=("clip",), cases=24):
        options = {"kind": kind, "classes": ("target",), "targets": targets}
        return synthetic.Maker(tmp_path, cases=cases, **options)

    return made


def cell(maker, name="none", *, dice, agree=1.0, stuck=False, sites=("",), **setting):
    """Masks of 1000 pixels with this Dice, and this Dice with the clean mask, give or take."""
    rows = []
    for i in range(maker.cases):
        overlap = int(np.clip(1000 * (dice + 0.04 * np.sin(i)), 0, 1000))
        rows.append(
            maker.outcome(
                i,
                right=True,
                score=overlap / 1000,
                regions=(Region(overlap, 1000, 1000, 1.0, 0.5, 1, 1),),
                pixels=10_000,
                changed_pixels=round(2000 * (1 - agree)),
                status=Status.NO_MOVE if stuck else Status.OK,
                site=sites[i % len(sites)],
            )
        )
    family = "none" if name == "none" else "attacks"
    for target in maker.targets:
        maker.cell(target, family, name, setting=setting, outcomes=rows)


def asked(maker):
    record = maker.write()
    ours = {text for text, _ in prompt_questions(record)}
    found = questions(record, summarise(record), paired(record))
    return {q.text: {a.who: a for a in q.answers} for q in found if q.text in ours}


def answers(maker, start):
    return next((a for text, a in asked(maker).items() if start in text), {})


def ladder(maker, name, dice, **setting):
    for epsilon, left in zip(EPSILONS, dice, strict=True):
        cell(maker, name, dice=left, epsilon=epsilon, **setting)


def test_the_literal_and_the_corrected_protocol_answer_apart(masks):
    """The published values: PGD loses at 0.03; the corrected ones never do."""
    maker = masks()
    cell(maker, dice=0.89)
    ladder(maker, "normalised_pgd", (0.75, 0.67, 0.58, 0.52), steps=1, **LITERAL)
    ladder(maker, "normalised_pgd", (0.71, 0.79, 0.48, 0.38), steps=40, **LITERAL)
    ladder(maker, "fgsm", (0.7, 0.6, 0.5, 0.4), **CORRECTED)
    ladder(maker, "pgd", (0.5, 0.3, 0.1, 0.05), steps=20, **CORRECTED)
    found = asked(maker)

    beats = found["Does PGD beat FGSM?"]
    assert beats["clip, literal"].verdict == "yes at 0.01, 0.1 and 0.5, the reverse at 0.03"
    assert "12.0\u00a0pp [12.0, 12.0] at 0.03" in beats["clip, literal"].text
    assert beats["clip, corrected, dice_ce"].verdict == "yes"
    monotone = found["Is the damage monotone in epsilon?"]
    assert monotone["clip, literal, FGSM"].verdict == "yes"
    assert monotone["clip, literal, PGD"].verdict == "no, from 0.01 to 0.03"
    assert monotone["clip, corrected, dice_ce, PGD"].verdict == "yes"


def test_an_attack_that_loses_everywhere_or_nowhere(masks):
    maker = masks()
    cell(maker, dice=0.9)
    ladder(maker, "fgsm", (0.4,) * 4, **CORRECTED)
    ladder(maker, "pgd", (0.5,) * 4, steps=20, **CORRECTED)
    ladder(maker, "pgd", (0.4,) * 4, steps=1, **CORRECTED)
    assert answers(maker, "beat")["clip, corrected, dice_ce"].verdict == "no, the reverse"


def test_other_losses_and_questions_are_other_protocols(masks):
    maker = masks()
    cell(maker, dice=0.9)
    for prompt in ("same", "random"):
        for steps in (1, 40):
            how = {**LITERAL, "prompt": prompt, "steps": steps}
            cell(maker, "normalised_pgd", dice=0.5, epsilon=0.1, **how)
    single = {**LITERAL, "double_sigmoid": False}
    for steps in (1, 40):
        cell(maker, "normalised_pgd", dice=0.1, epsilon=0.1, steps=steps, **single)
    found = answers(maker, "beat")
    assert set(found) == {
        "clip, literal",
        "clip, literal, question drawn anew",
        "clip, literal, single sigmoid",
    }
    assert {a.verdict for a in found.values()} == {"cannot tell"}


@pytest.mark.parametrize(("agree", "verdict"), [(0.2, "yes"), (0.9, "no")])
@pytest.mark.parametrize("kind", ["prompted_segmentation", "segmentation"])
def test_a_universal_perturbation_fools_many_or_not(masks, agree, verdict, kind):
    maker = masks(kind)
    cell(maker, dice=0.9)
    cell(maker, "universal", dice=0.3, agree=agree, epsilon=0.1, norm="linf", held_out="site")
    (found,) = answers(maker, "one perturbation").values()
    assert found.verdict == verdict
    assert "fitted on other sites" in found.text
    assert "of 24 images" in found.text
    assert "Dice −60.0" in found.text
    if kind == "segmentation":
        assert len(asked(maker)) == 1


def edit(maker, kind, dice, **more):
    cell(maker, "prompt_edit", dice=dice, **{"kind": kind, "edits": 1, "queries": 8, **more})


def test_wording_that_matters_is_named(masks):
    maker = masks()
    cell(maker, dice=0.8)
    edit(maker, "synonym", 0.8)
    edit(maker, "typo", 0.5, agree=0.6)
    edit(maker, "truncation", 0.8, stuck=True)
    cell(maker, "prompt_wording", dice=0.79, kinds=["c1", "c2"])
    cell(maker, "prompt_exchange", dice=0.2, tokens=2, tries=6)
    found = answers(maker, "wording")["clip"]
    assert found.verdict.startswith("yes, prompt edit · kind typo, prompt wording")
    assert found.verdict.endswith("and prompt exchange")
    assert "kind truncation (worst of up to 8; nothing to change in these questions)" in found.text
    assert "agreement with its own answer 60.0" in found.text
    assert "prompt wording (worst of up to 2)" in found.text
    assert "prompt exchange (2 tokens, meaning not held)" in found.text


@pytest.mark.parametrize(
    ("cases", "verdict"), [(100, "no, by less than 5\u00a0pp"), (24, "cannot tell")]
)
def test_wording_that_does_not_matter_takes_enough_cases(masks, cases, verdict):
    maker = masks(cases=cases)
    cell(maker, dice=0.8)
    edit(maker, "synonym", 0.8)
    assert answers(maker, "wording")["clip"].verdict == verdict


@pytest.mark.parametrize(
    ("dice", "verdict"), [((0.5, 0.0, 0.0, 0.0), "yes"), ((0.5,) * 4, "cannot tell")]
)
def test_monotone_is_said_of_a_course_that_surely_falls(masks, dice, verdict):
    maker = masks()
    cell(maker, dice=0.9)
    ladder(maker, "pgd", dice, steps=20, **CORRECTED)
    found = answers(maker, "monotone")["clip, corrected, dice_ce, PGD"]
    assert found.verdict == verdict
    assert "; from 0.01 to 0.5 " in found.text


@pytest.mark.parametrize(
    ("negation", "organ", "verdict"),
    [
        (0.1, 0.1, "yes"),
        (0.8, 0.7, "no"),
        (0.8, 0.1, "in part: organ, not negation"),
        (0.4, 0.1, "yes, organ; the rest cannot be told"),
    ],
)
def test_a_model_that_reads_loses_the_mask_of_the_other_question(masks, negation, organ, verdict):
    maker = masks()
    cell(maker, dice=0.8)
    edit(maker, "negation", negation)
    edit(maker, "organ", organ)
    edit(maker, "location", 0.8, stuck=True)
    found = answers(maker, "read its question")["clip"]
    assert found.verdict == verdict
    assert "location (worst of up to 8; nothing to change in these questions)" in found.text


@pytest.mark.parametrize(
    ("other", "verdict", "share"),
    [(0.45, "yes, more than half", "87.5"), (0.75, "no, less than half", "12.5")],
)
def test_an_attack_under_another_question(masks, other, verdict, share):
    maker = masks()
    cell(maker, dice=0.8)
    how = {**CORRECTED, "epsilon": 0.03, "steps": 20}
    cell(maker, "pgd", dice=0.4, **how, prompt="same")
    cell(maker, "pgd", dice=other, **how, prompt="random")
    (found,) = answers(maker, "carry over").values()
    assert found.verdict == verdict
    assert f"{share}\u00a0% of the damage carries over" in found.text
    assert found.who == "clip, pgd · epsilon 0.03, prompt random"


def test_an_attack_without_damage_has_nothing_to_carry_over(masks):
    maker = masks()
    cell(maker, dice=0.8)
    for prompt in ("same", "random"):
        cell(maker, "pgd", dice=0.8, **CORRECTED, epsilon=0.01, prompt=prompt)
    (found,) = answers(maker, "carry over").values()
    assert (found.verdict, found.text) == ("cannot tell", "no damage to carry over")


def test_published_values_stand_beside_the_site_that_is_theirs(masks, tmp_path):
    maker = masks()
    sites = ("kvasir_seg", "busi_seg")
    cell(maker, dice=0.8, sites=sites)
    cell(maker, "normalised_pgd", dice=0.5, sites=sites, epsilon=0.03, steps=40, **LITERAL)
    cell(maker, "normalised_pgd", dice=0.4, sites=sites, epsilon=0.2, steps=40, **LITERAL)
    record = maker.write()
    found = published(record)

    heads = ("published, Dice", "published, IoU", "clip, literal, Dice", "clip, literal, IoU")
    assert found.grid.columns == heads
    rows = dict(found.grid.rows)
    assert len(rows) == 9
    assert [e.value for e in rows["clean"][:2]] == ["88.8\u00a0%", "82.7\u00a0%"]
    assert rows["clean"][2].value.startswith("80.")
    theirs, _, ours, _ = rows["PGD · epsilon 0.03"]
    assert theirs.value == "79.2\u00a0%"
    assert ours.value.startswith("50.")
    assert ours.title.endswith("12 rows")
    assert rows["FGSM · epsilon 0.03"][2:] == (None, None)
    assert "kvasir_seg alone" in found.note
    page = render(record, tmp_path / "r.html").read_text()
    assert "arXiv 2505.02971; table of its public code" in page
    assert page.count('id="published"') == 1


def test_without_such_cells_nothing_is_asked(masks, tmp_path):
    maker = masks()
    cell(maker, dice=0.8)
    cell(maker, "square", dice=0.4, epsilon=0.03, norm="linf")
    assert asked(maker) == {}
    assert published(maker.write()) is None
    assert "#published" not in render(maker.write(), tmp_path / "r.html").read_text()


def test_labels_are_asked_nothing(synthetic, tmp_path):
    record = synthetic.rich(tmp_path, cases=8, trials=2)
    assert prompt_questions(record) == ()
    assert published(record) is None
