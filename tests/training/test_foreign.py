"""Questions that do not fit: which there are, who meets them, and that a network learns to read."""

from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from palpate.datasets.base import Samples
from palpate.errors import ConfigError
from palpate.training import Examples, train
from palpate.training.examples import batches
from palpate.training.foreign import foreign_questions, mismatching
from palpate.training.masks import mask_scores
from palpate.training.recipe import parse_recipe
from palpate.training.scores import predict
from palpate.types import PromptedSegmentation

NORM = {"mean": (0.5,), "std": (0.5,)}
WORDS = ("", "polyp", "mole", "mass", "growth", "naevus", "lump", "round polyp", "flat polyp")


def tokenizer(prompts):
    return torch.tensor([[WORDS.index(prompt), 0] for prompt in prompts])


def samples(sites="aabbc", **changes):
    """Three sites with a class question and a paraphrase; p2 tells polyps apart."""
    named = {"a": ("polyp", "growth"), "b": ("mole", "naevus"), "c": ("mass", "lump")}
    count = len(sites)
    own = ["round polyp" if i % 2 else "flat polyp" for i in range(count)]
    values = {
        "read": lambda rows: np.zeros((len(rows), 1, 4, 4), np.uint8),
        "references": np.zeros((count, 1, 4, 4), np.uint8),
        "ids": tuple(str(i) for i in range(count)),
        "cases": tuple(str(i) for i in range(count)),
        "sites": tuple(sites),
        "task": PromptedSegmentation(),
        "label": "made up",
        "prompts": tuple(named[s][0] for s in sites),
        "wordings": {
            "p2": tuple(own),
            "c1": tuple(named[s][1] for s in sites),
            "p0": ("",) * count,
        },
    }
    return Samples(**(values | changes))


def test_only_questions_that_a_whole_site_shares_and_no_other_are_asked_elsewhere():
    found = foreign_questions(samples(), tokenizer)

    assert found.shape == (5, 2, 2, 2)  # p2 tells of single masks, p0 of nothing
    texts = [[[WORDS[int(t[0])] for t in kind] for kind in row] for row in found]
    assert texts[0] == texts[1] == [["mole", "mass"], ["naevus", "lump"]]
    assert texts[2] == texts[3] == [["polyp", "mass"], ["growth", "lump"]]
    assert texts[4] == [["polyp", "mole"], ["growth", "naevus"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"sites": "aaa"},
        {"sites": "ab", "prompts": ("mole", "mole"), "wordings": {}},
        {"sites": "aabb", "prompts": ("polyp", "growth", "mole", "naevus"), "wordings": {}},
    ],
    ids=["one site", "the same question", "no question of the whole site"],
)
def test_data_that_offer_no_such_question_are_refused(changes):
    with pytest.raises(ConfigError, match="mismatched: expected two or more sites"):
        foreign_questions(samples(**changes), tokenizer)


def recipe(**changes):
    data = {
        "dataset": {"name": "bars"},
        "target": {"name": "reader"},
        "output": "reader",
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 3e-2,
        "weight_decay": 0.0,
        "loss": "dice_ce",
        "mismatched": 0.4,
        "select_by": "asked",
    }
    return parse_recipe(data | changes)


def bars(count, seed):
    """Site 0 is dark, site 1 bright; each has a bar, asked for by token 1 or 2."""
    generator = torch.Generator().manual_seed(seed)
    site = torch.arange(count) % 2
    masks = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    for i, column in enumerate(torch.randint(1, 7, (count,), generator=generator).tolist()):
        masks[i, :, :, column] = 1
    images = 40 + 120 * site.view(-1, 1, 1, 1) + 50 * masks.long()
    fitting, other = (site + 1).view(-1, 1, 1), (2 - site).view(-1, 1, 1, 1)
    return Examples(images.to(torch.uint8), masks, fitting, other)


class Reader(nn.Module):
    """Draws what is brighter than its row, if image and question go together."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(3, 8)
        self.head = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, images, tokens):
        level = images.mean(dim=(1, 2, 3))
        seen = torch.cat([self.words(tokens[:, 0]), level[:, None]], dim=1)
        scale, shift = self.head(seen).view(-1, 2, 1, 1, 1).unbind(1)
        return scale * (images - level.view(-1, 1, 1, 1)) * 10 + shift


def test_the_share_is_asked_wrongly_and_has_an_empty_truth():
    data, seen = bars(400, 0), Counter()
    for part in batches(recipe(), data, seed=3):
        bright = part.images.mean(dim=(1, 2, 3)) > 0.4
        fits = part.tokens[:, 0] == bright.long() + 1
        empty = part.labels.flatten(1).sum(dim=1) == 0
        assert (empty == ~fits).all()
        seen.update(fits.tolist())
    assert sum(seen.values()) == 400
    assert seen[False] == pytest.approx(160, abs=40)


def asked(data, **changes):
    """Bar and question of every image of an epoch."""
    found = set()
    for part in batches(recipe(**changes), data, seed=3):
        rows = zip(part.images.flatten(1).tolist(), part.tokens[:, 0].tolist(), strict=True)
        found |= {(tuple(image), token) for image, token in rows}
    return found


def test_who_meets_which_question_does_not_hang_on_the_batches():
    data = bars(40, 0)
    drawn = data._replace(images=(torch.arange(40 * 64) // 64).view(40, 1, 8, 8).to(torch.uint8))

    assert asked(drawn, batch_size=8) == asked(drawn, batch_size=40)
    assert asked(drawn) != asked(drawn, mismatched=0.0)


def test_nothing_changes_where_no_question_is_mismatched():
    data = bars(40, 0)
    with_foreign, without = (
        [part.tokens for part in batches(recipe(mismatched=0.0), d, seed=3)]
        for d in (data, data._replace(foreign=None))
    )
    assert all(torch.equal(a, b) for a, b in zip(with_foreign, without, strict=True))


def test_a_split_under_the_other_question_is_to_stay_empty():
    data = bars(6, 0)
    wrong = mismatching(data)

    assert torch.equal(wrong.images, data.images)
    assert torch.equal(wrong.tokens, data.foreign[:, 0])
    assert wrong.labels.sum() == 0


def test_examples_without_such_questions_are_refused():
    plain = bars(8, 0)._replace(foreign=None)
    with pytest.raises(ConfigError, match="expected examples with questions that do not fit"):
        mismatching(plain)
    with pytest.raises(ConfigError, match="expected examples with questions that do not fit"):
        next(batches(recipe(), plain, seed=0))


def test_a_network_reads_only_if_it_is_asked_for_what_is_not_there(tmp_path):
    splits = {"train": bars(64, 1), "validation": bars(32, 2), "test": bars(32, 3)}
    options = {"splits": splits, "classes": ("bar",), **NORM}

    reading = train(recipe(epochs=60), Reader, output=tmp_path / "reading", **options)
    assert reading["clean"]["test"]["dice"] > 0.95
    assert reading["clean"]["test mismatched"]["dice"] > 0.95
    assert reading["clean"]["test"]["foreground"] == pytest.approx(1 / 8, abs=0.01)
    assert reading["clean"]["test mismatched"]["foreground"] < 0.01
    kept = reading["curve"][reading["kept_epoch"] - 1]
    expected = 0.6 * kept["validation_dice"] + 0.4 * kept["validation_mismatched"]
    assert kept["validation_asked"] == pytest.approx(expected)
    assert kept["validation_asked"] == max(row["validation_asked"] for row in reading["curve"])

    taught = recipe(epochs=60, mismatched=0.0, select_by="dice")
    plain = train(taught, Reader, output=tmp_path / "plain", **options)
    assert plain["clean"]["test"]["dice"] > 0.95
    assert "test mismatched" not in plain["clean"]
    model, wrong = Reader(), mismatching(splits["test"])
    model.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    logits = predict(model, wrong.images, tokens=wrong.tokens, **NORM)
    assert mask_scores(logits, wrong.labels)["dice"] < 0.05
