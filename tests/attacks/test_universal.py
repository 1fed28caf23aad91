import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

import palpate
from palpate import registry
from palpate.attacks._gradient import Search
from palpate.attacks._held_out import Parts
from palpate.attacks._projection import size
from palpate.attacks._universal import Crowd, Fool, within
from palpate.attacks.pgd import Pgd
from palpate.attacks.universal import Universal
from palpate.contracts.oracles import Linear, constant, row_by_row
from palpate.datasets.base import Samples
from palpate.errors import ConfigError, DataError
from palpate.evaluation import evaluate
from palpate.outcome import Status, Verdict
from palpate.targets.base import Target
from palpate.types import (
    Batch,
    Classification,
    MultiLabel,
    PromptedSegmentation,
    Segmentation,
)

WEIGHT = torch.randn((1, 6, 6), generator=torch.Generator().manual_seed(3))


def of(images, references, *, cases=None, sites=None, prompts=None):
    names = tuple(f"s{i:02d}" for i in range(len(images)))
    return Batch(
        images,
        references,
        names,
        cases or names,
        sites or ("",) * len(names),
        prompts=prompts,
        wordings={} if prompts is None else {"asked": prompts, "other": ("mass",) * len(names)},
    )


def one_sided():
    """A linear model and 40 images that it all calls positive: one change is best for all."""
    images = 0.3 + 0.4 * torch.rand((40, 1, 6, 6), generator=torch.Generator().manual_seed(5))
    values = (images * WEIGHT).flatten(1).sum(1)
    target = Target(Linear(WEIGHT, 0.1 - float(values.min())).eval(), Classification(("no", "yes")))
    return target, of(images, torch.ones(40, dtype=torch.int64))


def logit(target, images):
    return target.logits(images).detach()[:, 1]


def measured(attack, target, data, **how):
    return evaluate(target, [data], perturbation=attack, study=data, **how)


@pytest.mark.parametrize("method", ["gradient", "deepfool"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_held_out_samples_fall_as_the_closed_form_says(method, norm):
    target, data = one_sided()
    dual = float(WEIGHT.abs().sum() if norm == "linf" else WEIGHT.norm())
    epsilon = float(logit(target, data.images).median()) / dual
    attack = Universal(epsilon=epsilon, norm=norm, method=method, rounds=3, fooling_rate=1.0)

    found = measured(attack, target, data)

    left = logit(target, data.images) - epsilon * dual
    fooled = [o.verdict is Verdict.SDC for o in found.outcomes]
    assert 15 < sum(fooled) < 25
    sure = left.abs() > (1e-3 if method == "gradient" else 5e-2) * epsilon * dual
    assert [f for f, s in zip(fooled, sure.tolist(), strict=True) if s] == (left < 0)[sure].tolist()
    best = -epsilon * (WEIGHT.sign() if norm == "linf" else WEIGHT / WEIGHT.norm())
    change = attack.fitted(target, data).changes["first half"]
    if method == "gradient":
        assert torch.allclose(change, best, atol=1e-4 * epsilon + 1e-6)
    else:
        assert float((change * best).sum() / (change.norm() * best.norm())) > 0.99


def test_the_deepfool_loop_goes_on_after_its_first_batch():
    """The study's loop left after one batch; here every walk meets every sample."""
    target, data = one_sided()
    order = logit(target, data.images)
    epsilon = 1.2 * float(order.max() / WEIGHT.abs().sum())
    asked: list[int] = []

    class Counted(Fool):
        def nearest(self, crowd, here, rows):
            asked.extend(rows.tolist())
            return super().nearest(crowd, here, rows)

    how = Counted(
        norm="linf",
        epsilon=epsilon,
        rounds=5,
        batch=1,
        fooling_rate=1.0,
        steps=10,
        overshoot=0.02,
        candidates=1,
    )
    crowd = Crowd.of(Search(target, data.images, data.references), 0.5)
    found = how(crowd)

    assert crowd.asked(found.change)[0] == 1.0
    assert len(asked) > 1  # more than one sample had its own least change
    # each change fools its own sample, so later ones are asked only if they stand farther off
    assert order[asked].tolist() == sorted(order[asked].tolist())
    assert int(order.argmax()) == asked[-1]
    short = how.__class__(**{**dataclasses.asdict(how), "rounds": 1, "epsilon": epsilon / 4})
    assert short(crowd).rounds == 1
    assert dataclasses.replace(short, rounds=3)(crowd).rounds == 3


def test_deepfool_ends_once_enough_are_fooled():
    target, data = one_sided()
    epsilon = 2 * float(logit(target, data.images).max() / WEIGHT.abs().sum())
    told = measured(
        Universal(epsilon=epsilon, method="deepfool", fooling_rate=0.5), target, data
    ).notes[0]["universal"]

    assert [t["rounds"] for t in told] == [1, 1]
    assert all(t["fooling_rate"] >= 0.5 for t in told)


def test_a_mask_of_one_plane_can_be_fooled():
    """An argmax over a single channel is always 0: so the study's masks always agreed."""
    logits = torch.tensor([2.0, 2.0, -2.0, -2.0]).reshape(1, 1, 2, 2)
    module = nn.Conv2d(1, 1, 1)
    task = Segmentation(("lesion",), exclusive=False)
    search = Search(Target(module.eval(), task), torch.zeros(1, 1, 2, 2), (logits > 0).long())
    crowd = Crowd(search, (logits > 0).long(), torch.tensor([True]), agreement=0.5)
    rows = torch.tensor([0])

    assert not bool(crowd.fooled(logits, rows))
    assert bool(crowd.fooled(-logits, rows))
    half = torch.tensor([2.0, -2.0, -2.0, -2.0]).reshape(1, 1, 2, 2)
    assert not bool(crowd.fooled(half, rows))  # Dice 2/3
    assert bool(dataclasses.replace(crowd, agreement=0.7).fooled(half, rows))


class Lockers(nn.Module):
    """Sample i carries a key that opens the value of place i alone: nothing is shared."""

    def __init__(self, count):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.count = count

    def forward(self, images):
        keys = (images[:, 0] > 0.5).float()
        return self.scale * (keys * (images[:, 1] - 0.45)).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("method", ["gradient", "deepfool"])
def test_no_sample_is_measured_with_what_saw_it(method):
    """What memorises its samples fools all of them, and none that is held out."""
    images = torch.full((24, 2, 1, 24), 0.5)
    images[:, 0, 0] = torch.eye(24)
    target = Target(Lockers(24).eval(), Classification(("no", "yes")))
    data = of(images, torch.ones(24, dtype=torch.int64))

    found = measured(Universal(epsilon=0.1, method=method, fooling_rate=1.0), target, data)

    told = found.notes[0]["universal"]
    assert [(t["fitted_on"], t["held_out"]) for t in told] == [(12, 12), (12, 12)]
    assert [t["fooling_rate"] for t in told] == [1.0, 1.0]
    assert [t["fooling_rate_held_out"] for t in told] == [0.0, 0.0]
    assert all(o.verdict is Verdict.MASKED and o.linf > 0.05 for o in found.outcomes)


def test_patients_are_never_divided_and_halves_are_even():
    cases = tuple(f"p{i // 3}" for i in range(30))
    data = of(torch.zeros(30, 1, 1, 1), torch.zeros(30, dtype=torch.int64), cases=cases)
    parts = Parts.of(data, "case")
    part = parts.part(data)

    assert all(len({part[i], part[i + 1], part[i + 2]}) == 1 for i in range(0, 30, 3))
    assert sorted(parts.known.values()).count("first half") == 5
    new = of(torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64), cases=("p99", "p99"))
    assert len(set(parts.part(new))) == 1


def test_a_site_meets_what_was_fitted_on_the_other_sites():
    """Each site has a channel of its own, so nothing carries over between them."""
    images = torch.full((12, 3, 4, 4), 0.5)
    weight = torch.zeros(3, 4, 4)
    sites = tuple("abc"[i % 3] for i in range(12))
    for i, site in enumerate(sites):
        images[i, "abc".index(site)] = 0.6
    weight[:] = 0.05
    target = Target(Linear(weight, -1.2).eval(), Classification(("no", "yes")))
    data = of(images, torch.ones(12, dtype=torch.int64), sites=sites)
    told = measured(Universal(epsilon=0.05, held_out="site"), target, data).notes[0]["universal"]

    assert [t["measured_on"] for t in told] == ["a", "b", "c"]
    assert [(t["fitted_on"], t["held_out"]) for t in told] == [(8, 4)] * 3
    with pytest.raises(DataError, match=r"two or more sites.* got 1 \(''\)"):
        Universal(held_out="site").fitted(target, of(images, data.references))


@pytest.mark.parametrize("method", ["gradient", "deepfool"])
def test_batch_size_and_order_change_nothing(method):
    draw = torch.Generator().manual_seed(6)
    images = torch.rand((10, 2, 8, 8), generator=draw)
    target = row_by_row()
    data = of(images, torch.zeros(10, dtype=torch.int64))
    labels = target.predict(data).decisions
    data = dataclasses.replace(data, references=labels)
    attack = Universal(epsilon=0.05, method=method, rounds=4, batch=3)

    def changed(order, size):
        turned = Batch(images[order], labels[order], *[tuple(x[i] for i in order) for x in names])
        parts = [
            Batch(
                turned.images[i : i + size],
                turned.references[i : i + size],
                turned.samples[i : i + size],
                turned.cases[i : i + size],
                turned.sites[i : i + size],
            )
            for i in range(0, 10, size)
        ]
        found = evaluate(target, parts, perturbation=attack, study=turned)
        return {o.sample: (o.linf, o.l2, o.probabilities) for o in found.outcomes}

    names = (data.samples, data.cases, data.sites)
    whole = changed(list(range(10)), 10)
    assert changed(list(range(10)), 3) == whole
    assert changed(list(range(9, -1, -1)), 4) == whole


def shared_mask(count=8):
    """z = 10 (x - 0.5) per pixel; all images have the same mask, brighter or darker."""
    module = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.0, 10.0]).reshape(2, 1, 1, 1))
        module.bias.copy_(torch.tensor([0.0, -5.0]))
    mask = torch.zeros(12, 12)
    mask[3:9, 4:10] = 1
    distance = 0.3 * torch.rand((count, 1, 12, 12), generator=torch.Generator().manual_seed(1))
    images = 0.5 + (2 * mask - 1) * (distance + 1e-3)
    target = Target(module.eval(), Segmentation(("background", "lesion")))
    return target, of(images, mask.long().expand(count, -1, -1)), mask


@pytest.mark.parametrize("loss", ["ce", "dice_ce", "jsd", "margin"])
def test_masks_have_a_closed_form_too(loss):
    target, data, mask = shared_mask()
    found = measured(Universal(epsilon=0.1, loss=loss), target, data)

    change = 0.1 * (1 - 2 * mask)
    expected = evaluate(target, [data.with_images((data.images + change).clamp(0, 1))])
    assert [o.score for o in found.outcomes] == pytest.approx(
        [o.score for o in expected.outcomes], abs=1e-6
    )
    assert all(o.linf == pytest.approx(0.1, abs=1e-6) for o in found.outcomes)


def test_deepfool_fools_masks():
    target, data, _ = shared_mask()
    strong = measured(Universal(epsilon=0.2, method="deepfool", fooling_rate=1.0), target, data)
    told = strong.notes[0]["universal"]

    assert [t["fooling_rate_held_out"] for t in told] == [1.0, 1.0]
    assert all(o.score < 0.5 for o in strong.outcomes)


def test_a_trained_segmenter_has_one(network):
    """One change for all held-out images costs Dice, though never more than one for each."""
    target, images, masks = network
    data = of(images, masks)
    clean = evaluate(target, [data]).outcomes
    shared = measured(Universal(epsilon=0.1, loss="dice_ce"), target, data).outcomes
    own = evaluate(target, [data], perturbation=Pgd(epsilon=0.1, loss="dice_ce")).outcomes

    def dice(outcomes):
        return sum(o.score for o in outcomes) / len(outcomes)

    assert dice(own) <= dice(shared) < dice(clean) - 0.1
    assert all(o.linf <= 0.1 + 1e-6 for o in shared)


def test_a_goal_may_be_shared():
    target, data, mask = shared_mask()
    erased = measured(Universal(epsilon=0.35, goal="erase", loss="ce"), target, data)

    assert all(o.score == 0.0 for o in erased.outcomes)
    change = Universal(epsilon=0.35, goal="erase").fitted(target, data).changes["first half"]
    assert float(change[0][mask.bool()].max()) < -0.3


@pytest.mark.parametrize("method", ["gradient", "deepfool"])
def test_several_labels(method):
    weights = torch.randn((3, 36), generator=torch.Generator().manual_seed(2))
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    images = 0.3 + 0.4 * torch.rand((12, 1, 6, 6), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        module[1].weight.copy_(weights)
        values = images.flatten(1) @ weights.T
        module[1].bias.copy_(0.2 - values.min(dim=0).values)
    target = Target(module.eval(), MultiLabel(("a", "b", "c")))
    data = of(images, torch.ones((12, 3), dtype=torch.int64))
    found = measured(Universal(epsilon=0.1, method=method, fooling_rate=1.0), target, data)

    assert all(t["fooling_rate"] > 0.8 for t in found.notes[0]["universal"])
    assert sum(o.verdict is Verdict.SDC for o in found.outcomes) >= 8


class Asked(nn.Module):
    """A threshold per pixel, of the channel that the first token chooses."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images, tokens):
        rows = torch.arange(len(images))
        return self.scale * (images[rows, tokens[:, 0] % 2].unsqueeze(1) - 0.5)


def test_a_question_is_part_of_the_search():
    """Fitted under another question, the change is where that question looks."""
    _, data, mask = shared_mask()
    target = Target(
        Asked().eval(),
        PromptedSegmentation(),
        tokenizer=lambda prompts: torch.tensor([[len(p)] for p in prompts]),
    )
    both = data.images.expand(-1, 2, -1, -1)
    asked = of(both, data.references.unsqueeze(1), prompts=("tumour",) * 8)
    asked = dataclasses.replace(asked, wordings={**asked.wordings, "odd": ("polyp",) * 8})
    same = Universal(epsilon=0.1).fitted(target, asked).changes["first half"]
    odd = Universal(epsilon=0.1, prompt="fixed:odd").fitted(target, asked).changes["first half"]

    best, none = 0.1 * (1 - 2 * mask), torch.zeros_like(mask)
    assert torch.allclose(same, torch.stack([best, none]), atol=1e-6)
    assert torch.allclose(odd, torch.stack([none, best]), atol=1e-6)
    told = measured(Universal(epsilon=0.1, prompt="fixed:odd"), target, asked)
    assert all(o.score == 1.0 and o.prompt == "tumour" for o in told.outcomes)


def test_a_target_without_gradients_is_said():
    draw = torch.Generator().manual_seed(1)
    data = of(torch.rand((6, 2, 8, 8), generator=draw), torch.ones(6, dtype=torch.int64))
    for method in ("gradient", "deepfool"):
        found = measured(Universal(method=method, rounds=2), constant(), data)
        assert {o.status for o in found.outcomes} == {Status.NO_GRADIENT}
        alone = Universal(method=method, rounds=2).search(constant(), data.images, data.references)
        assert set(alone.status) == {Status.NO_GRADIENT}


def test_pixels_at_their_bound_have_no_say():
    """Half of the images are black where darker would be better: they must not outvote the rest."""
    target = Target(Linear(torch.ones(1, 2, 2), -0.5).eval(), Classification(("no", "yes")))
    images = torch.zeros(4, 1, 2, 2)
    images[:, :, 0] = 0.6
    data = of(images, torch.ones(4, dtype=torch.int64))
    change = Universal(epsilon=0.1).fitted(target, data).changes["first half"]

    assert torch.allclose(change[0, 0], torch.tensor(-0.1))
    moved = Universal(epsilon=0.1)(target, images, data.references) - images
    assert float(size(moved, "linf").max()) <= 0.1 + 1e-7
    assert float(moved[:, :, 1].abs().max()) == 0


def test_the_samples_looked_at_are_spread():
    assert list(Universal(samples=4).studied(10)) == [0, 2, 5, 7]
    assert list(Universal().studied(3)) == [0, 1, 2]
    assert len(Universal().studied(5000)) == 256


def test_the_ball_is_kept():
    change = torch.randn((1, 1, 5, 5), generator=torch.Generator().manual_seed(0))

    assert float(size(within(change, "linf", 0.3), "linf")) == pytest.approx(0.3)
    assert float(size(within(change, "l2", 0.3), "l2")) == pytest.approx(0.3, abs=1e-5)
    assert torch.equal(within(0.01 * change, "l2", 0.3), 0.01 * change)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": 0}, "rounds: expected 1 or more, got 0"),
        ({"batch": 0}, "batch: expected 1 or more, got 0"),
        ({"samples": 1}, "samples: expected 2 or more, got 1"),
        ({"fooling_rate": 1.5}, "fooling_rate: expected more than 0 to 1, got 1.5"),
        ({"step_size": 0.0}, "step_size: expected more than 0"),
        ({"overshoot": -0.1}, "overshoot: expected 0 or more"),
        ({"method": "deepfool", "goal": "erase"}, "goal: expected 'break' with deepfool"),
    ],
)
def test_mistakes_are_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        Universal(**setting)


def test_one_patient_alone_is_refused():
    target, data = one_sided()
    with pytest.raises(DataError, match="two or more cases, to fit on some and measure on the"):
        Universal().fitted(target, dataclasses.replace(data, cases=("p",) * 40))


def write(folder, images):
    """A file in MedMNIST's form with these images in 8 bits, and what to call it."""
    arrays = {
        "test_images": (images[:, 0] * 255).round().to(torch.uint8).numpy(),
        "test_labels": np.ones((len(images), 1), dtype=np.uint8),
    }
    np.savez(folder / "train.npz", **arrays)
    return {"name": "npz", "path": "train.npz", "classes": ["no", "yes"]}


def test_it_may_be_fitted_on_other_data(tmp_path):
    target, data = one_sided()
    images = (data.images * 255).round() / 255
    half = images[:20], images[20:]
    spec = write(tmp_path, half[0])
    parameters = {"epsilon": 0.05, "fit_on": spec}
    attack = registry.create("attacks", "universal", parameters, base=tmp_path)
    audited = of(half[1], data.references[20:])

    found = attack.fitted(target, audited)

    assert torch.allclose(found.changes["all"], -0.05 * WEIGHT.sign(), atol=1e-6)
    [told] = found.told["universal"]
    assert (told["fitted_on"], told["held_out"]) == (20, 20)
    one_patient = dataclasses.replace(audited, cases=("p",) * 20)  # nothing to divide
    assert attack.fitted(target, one_patient).changes["all"].shape == (1, 6, 6)
    with pytest.raises(DataError, match="those that are measured, got 20 of these among the 20"):
        attack.fitted(target, of(half[0], data.references[:20]))
    larger = of(torch.full((4, 1, 9, 9), 0.5), data.references[:4])
    with pytest.raises(DataError, match=r"image shape \(1, 9, 9\), got \(1, 6, 6\)"):
        attack.fitted(target, larger)


@pytest.mark.parametrize("by", ["universal", "transfer"])
def test_no_sample_that_it_is_fitted_on_is_measured(tmp_path, by):
    """Also not one that the search would not look at; the audit stops before it starts."""
    target, data = one_sided()
    images = (data.images * 255).round() / 255
    given = {"name": "universal", "samples": 2, "fit_on": write(tmp_path, images[:2])}
    own = {k: v for k, v in given.items() if k != "name"}
    parameters = own if by == "universal" else {"attack": given}
    asked = registry.create("attacks", by, parameters, base=tmp_path)
    audited = images[2:].clone()
    assert 7 not in asked.studied(len(audited))

    def audit(pixels, store):
        labels = np.ones(len(pixels), dtype=np.int64)
        samples = Samples.of(pixels.numpy(), labels, task=target.task)
        return palpate.audit(target, samples, [asked], store=tmp_path / store)

    audit(audited, "apart")
    audited[7] = images[1]
    with pytest.raises(DataError, match=r"got 1 of these among the 2 fitted on, first '7'$"):
        audit(audited, "together")
    assert not (tmp_path / "together").exists()


def test_other_data_count_by_their_content(tmp_path):
    target, data = one_sided()
    spec = write(tmp_path, data.images)
    attack = registry.create("attacks", "universal", {"fit_on": spec}, base=tmp_path)
    before = attack.identity(target, data)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    write(moved, data.images)
    same = registry.create("attacks", "universal", {"fit_on": spec}, base=moved)
    assert same.identity(target, data) == before
    write(moved, data.images.flip(0))
    other = registry.create("attacks", "universal", {"fit_on": spec}, base=moved)
    assert other.identity(target, data) != before
    with pytest.raises(ConfigError, match="fit_on: expected a dataset with a name, or 'audited'"):
        Universal(fit_on="train")


def test_it_is_carried_over_from_another_model(tmp_path):
    """Fitted on a surrogate with other weights, the change is the surrogate's best."""
    (tmp_path / "other.py").write_text(
        "import torch\n"
        "from palpate.contracts.oracles import Linear\n"
        "def make():\n"
        "    draw = torch.Generator().manual_seed(12)\n"
        "    return Linear(torch.randn((1, 6, 6), generator=draw), 3.0)\n"
    )
    target, data = one_sided()
    surrogate = {"name": "module", "factory": f"{tmp_path}/other.py:make", "mean": [0], "std": [1]}
    attack = registry.create(
        "attacks", "transfer", {"attack": "universal", "surrogate": surrogate, "epsilon": 0.05}
    )
    assert attack.looks_first
    assert list(attack.studied(1000)) == list(Universal().studied(1000))
    found = attack.fitted(target, data)

    other = torch.randn((1, 6, 6), generator=torch.Generator().manual_seed(12))
    assert torch.allclose(found.changes["first half"], -0.05 * other.sign(), atol=1e-6)
    outcomes = measured(attack, target, data).outcomes
    shifted = logit(target, (data.images - 0.05 * other.sign()).clamp(0, 1))
    assert [o.verdict is Verdict.SDC for o in outcomes] == (shifted < 0).tolist()
    silent = evaluate(
        Target(Linear(torch.zeros(1, 6, 6), 1.0).eval(), target.task),
        [data],
        perturbation=found,
    ).outcomes
    assert {o.status for o in silent} == {Status.NO_GRADIENT}


def test_fools_no_fewer_than_art(few):
    """Same radius, images and inner DeepFool, and as many walks; or gradients, in less time."""
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    target, images, _ = few
    images, epsilon = images[:10], 24 / 255
    classifier = PyTorchClassifier(
        few.network,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 28, 28),
        nb_classes=2,
        clip_values=(0, 1),
        device_type="cpu",
    )
    theirs = UniversalPerturbation(
        classifier,
        attacker="deepfool",
        attacker_params={"max_iter": 10, "epsilon": 0.02, "nb_grads": 2, "verbose": False},
        delta=0.01,
        max_iter=3,
        eps=epsilon,
        norm=np.inf,
        verbose=False,
    )
    random.seed(0)  # the one that it draws its order from
    moved = torch.from_numpy(theirs.generate(images.numpy())).float()
    decided = target.logits(images).argmax(1)

    def rate(changed):
        return float((target.logits(changed.clamp(0, 1)).argmax(1) != decided).float().mean())

    for method, rounds in (("gradient", 20), ("deepfool", 3)):
        attack = Universal(
            epsilon=epsilon, method=method, rounds=rounds, fooling_rate=0.99, label="prediction"
        )
        ours = rate(attack(target, images, decided))
        assert ours >= rate(moved)
        assert ours > 0


class Dropped(nn.Module):
    """The linear model behind noise that is drawn anew for every pass."""

    def __init__(self, bias):
        super().__init__()
        self.inner = Linear(WEIGHT, bias)

    def forward(self, images):
        return self.inner(images) + 0.5 * torch.randn(len(images), 1)


def test_a_random_target_is_asked_on_average():
    target, data = one_sided()
    data = of(data.images[:10], data.references[:10])
    noisy = target.with_module(Dropped(float(target.module.bias.detach())))
    attack = Universal(epsilon=0.05, eot=4, rounds=5)

    found = attack.fitted(noisy, data)

    assert torch.allclose(found.changes["first half"], -0.05 * WEIGHT.sign(), atol=1e-6)
    again = attack.fitted(noisy, data)
    assert again.told == found.told
    deepfool = dataclasses.replace(attack, method="deepfool", rounds=1).fitted(noisy, data)
    assert float(size(deepfool.changes["first half"][None], "linf")) <= 0.05 + 1e-6


def test_a_whole_audit_keeps_what_was_found(tmp_path):
    """The record says how the change was found; storage and report take it like any attack."""
    target, data = one_sided()
    samples = palpate.Samples.of(
        data.images.numpy(), data.references.numpy(), task=target.task, label="one-sided"
    )
    asked = [{"name": "universal", "epsilon": 0.05, "rounds": [1, 10]}]
    how = {"store": tmp_path / "run", "storage": "png", "batch_size": 16}
    run = palpate.audit(target, samples, asked, **how)

    cells = [c for c in run.record.cells if c.perturbation == "universal"]
    assert [c.status for c in cells] == ["ok", "ok"]
    told = [c.notes[0]["universal"] for c in cells]
    assert [t["rounds"] for t in told[1]] == [10, 10]
    assert all(t["linf"] == pytest.approx(0.05, abs=1e-6) for t in told[1])
    spent = run.record.samples(cells[1])["linf"]
    assert spent.max() == pytest.approx(13 / 255, abs=1e-6)  # 12.75 grey levels, to the nearest
    assert "universal" in run.report().read_text()


def test_what_is_wrong_already_does_not_lead():
    """Wrong samples have the largest losses; followed, they would make the others safer."""
    images = torch.full((12, 1, 2, 2), 0.55)
    images[8:] = 0.9  # called "yes", though labelled "no": deeper wrong by going up
    labels = torch.tensor([1] * 8 + [0] * 4)
    target = Target(Linear(torch.full((1, 2, 2), 4.0), -8.0).eval(), Classification(("no", "yes")))
    change = Universal(epsilon=0.1).fitted(target, of(images, labels)).changes["first half"]
    assert torch.allclose(change, torch.full_like(change, -0.1), atol=1e-6)
