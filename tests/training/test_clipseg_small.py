"""recipes/vlsm_robustness/small: the checkpoint is what its card says, and its folder is whole."""

import os
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file

from palpate import config
from palpate.attacks.fgsm import Fgsm
from palpate.attacks.pgd import Pgd
from palpate.scoring import scores
from palpate.training import Examples, load_recipe
from palpate.training.card import tensors_digest
from palpate.training.foreign import foreign_questions, mismatching
from palpate.training.masks import mask_scores
from palpate.training.recipe import parse_recipe
from palpate.training.scores import predict

pytest.importorskip("transformers")

FOLDER = Path(__file__).parents[2] / "recipes/vlsm_robustness/small"
WEIGHTS = FOLDER / "weights/clipseg_small.safetensors"

LEAKING = {"p2", "p3", "p4", "p5", "p6", "p8", "p9"}  # worked out from the mask


@pytest.fixture(scope="module")
def card():
    return orjson.loads(WEIGHTS.with_suffix(".json").read_bytes())


def network(recipe):
    source = config.build("targets", recipe.target, FOLDER)
    with torch.random.fork_rng():
        return source, source.build(classes=1, channels=3)


def test_recipe_is_that_of_the_repository(card):
    recipe = parse_recipe(card["recipe"])

    assert recipe == load_recipe(FOLDER / "clipseg_small.yaml")
    first = load_recipe(FOLDER / "clipseg_fitting.yaml")
    assert recipe.start.weights == f"{first.output}.safetensors"
    assert first.mismatched == 0.0
    assert all(first.dataset[name] == recipe.dataset[name] for name in ("paths", "size"))
    assert not set(recipe.dataset["kinds"]) & LEAKING
    assert WEIGHTS.stat().st_size < 5e6


def test_its_card_says_that_it_reads(card):
    low, _ = card["intervals"]["test"]["foreground"]
    _, high = card["intervals"]["test mismatched"]["foreground"]

    assert high < low  # of the image drawn, wrong question and right
    # every image, under the questions of the other two sets
    assert card["clean"]["test mismatched"]["n"] == 2 * card["clean"]["test"]["n"]


def test_checkpoint_is_that_of_its_card(card):
    recipe = parse_recipe(card["recipe"])
    state = load_file(WEIGHTS)
    _, model = network(recipe)

    model.load_state_dict(state, strict=True)
    assert card["state_digest"] == tensors_digest(state)
    assert card["parameters"] == sum(p.numel() for p in model.parameters()) == 2_245_122


def test_the_prompts_of_the_repository_fit_its_tokenizer(card):
    source, _ = network(parse_recipe(card["recipe"]))
    tokenizer = source.tokenizer()
    for path in (FOLDER.parent / "prompts").glob("*.json"):
        content = orjson.loads(path.read_bytes())
        texts = {t for words in content["texts"].values() for t in words.values()}
        tokenizer(sorted(texts | set(content["paraphrases"])))  # raises where one is too long


@pytest.mark.skipif("PALPATE_DATA" not in os.environ, reason="PALPATE_DATA is not set")
def test_scores_are_those_of_its_card(card):
    recipe = parse_recipe(card["recipe"])
    samples = config.build("datasets", {**recipe.dataset, "split": "test"}, FOLDER).load()
    every = list(range(len(samples)))
    source, model = network(recipe)
    model.load_state_dict(load_file(WEIGHTS))
    words = source.tokenizer()
    right = Examples(
        torch.from_numpy(samples.read(every)),
        torch.from_numpy(samples.references[every]),
        words(samples.prompts)[:, None],
        foreign_questions(samples, words),
    )
    mean, std = card["input"]["mean"], card["input"]["std"]
    for name, part in (("test", right), ("test mismatched", mismatching(right))):
        logits = predict(model, part.images, mean=mean, std=std, tokens=part.tokens)
        found = mask_scores(logits, part.labels)["dice"]
        assert found == pytest.approx(card["clean"][name]["dice"], abs=1e-3)
        drawn = (logits > 0).float().mean().item()
        assert drawn == pytest.approx(card["clean"][name]["foreground"], abs=1e-3)


@pytest.mark.skipif("PALPATE_DATA" not in os.environ, reason="PALPATE_DATA is not set")
def test_the_corrected_attack_hurts_more_with_every_epsilon_and_more_than_one_step(card):
    recipe = parse_recipe(card["recipe"])
    spec = {**recipe.dataset, "split": "test", "limit": 3}
    samples = config.build("datasets", spec, FOLDER).load()
    source, model = network(recipe)
    model.load_state_dict(load_file(WEIGHTS))
    target = source.load(task=samples.task, channels=3, bounds=samples.bounds).with_module(model)
    batch = samples.batch(range(len(samples)))

    def left(attack):
        images = attack(target, batch.images, batch.references, prompts=batch.prompts)
        prediction = target.predict(batch.with_images(images))
        return scores(prediction, batch.references).mean().item()

    budgets = (0.0, 0.01, 0.03, 0.1, 0.5)
    pgd = [left(Pgd(epsilon=epsilon, steps=8, loss="dice_ce")) for epsilon in budgets]
    fgsm = [left(Fgsm(epsilon=epsilon, loss="dice_ce")) for epsilon in budgets]
    assert pgd == sorted(pgd, reverse=True)
    assert pgd[0] > 0.3 > 0.1 > pgd[-1]
    assert all(many <= one + 1e-6 for many, one in zip(pgd, fgsm, strict=True))
