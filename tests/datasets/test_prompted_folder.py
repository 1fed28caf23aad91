"""Several folders, one question per image, and the nine kinds worked out from masks."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from palpate import registry
from palpate.cli import app
from palpate.datasets._wordings import KINDS, wordings
from palpate.errors import DataError
from palpate.types import PromptedSegmentation


def disc(side=64, *, at=(16, 16), radius=8, squeeze=1.0):
    rows, columns = np.mgrid[:side, :side] + 0.5
    return ((rows - at[0]) ** 2 + ((columns - at[1]) / squeeze) ** 2) < radius**2


def write(folder, name, *, colour=False, masks=2):
    where = folder / name
    (where / "images").mkdir(parents=True)
    (where / "masks").mkdir()
    lines = ["id,image,mask,split,case"]
    for i in range(masks):
        mask = disc(at=(16 + 32 * i, 16)) if i < 2 else np.zeros((64, 64), bool)
        image = np.where(mask, 60, 160).astype(np.uint8)
        Image.fromarray(np.stack([image] * 3, -1) if colour else image).save(
            where / f"images/{i}.png"
        )
        Image.fromarray(mask.astype(np.uint8) * 255).save(where / f"masks/{i}.png")
        lines.append(f"s{i},images/{i}.png,masks/{i}.png,test,c{i}")
    (where / "split.csv").write_text("\n".join(lines) + "\n")
    (where / "dataset.json").write_text(json.dumps({"mask_values": {"0": "none", "255": name}}))
    return where


def prompt_file(folder, name, ids, **words):
    texts = {i: {"p0": "", "p1": name, "p2": f"round {name}", **words} for i in ids}
    content = {"texts": texts, "paraphrases": [f"a {name}"]}
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts" / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def two(tmp_path):
    paths = [write(tmp_path, "polyp", colour=True), write(tmp_path, "mole")]
    for name in ("polyp", "mole"):
        prompt_file(tmp_path, name, ("s0", "s1"))
    return {"paths": [str(p) for p in paths], "prompts": str(tmp_path / "prompts"), "size": 32}


def load(**parameters):
    return registry.create("datasets", "prompted_folder", parameters).load()


def test_two_folders_become_one_dataset_with_their_names_as_subgroups(two):
    samples = load(**two)
    batch = samples.batch(range(4))

    assert samples.ids == ("polyp/s0", "polyp/s1", "mole/s0", "mole/s1")
    assert samples.cases == ("polyp/c0", "polyp/c1", "mole/c0", "mole/c1")
    assert batch.sites == ("polyp", "polyp", "mole", "mole")
    assert isinstance(samples.task, PromptedSegmentation)
    assert batch.images.shape == (4, 3, 32, 32)  # the grey one has become RGB
    assert batch.references.shape == (4, 1, 32, 32)
    assert batch.prompts == ("polyp", "polyp", "mole", "mole")
    assert batch.wordings["c1"] == ("a polyp", "a polyp", "a mole", "a mole")
    assert samples.take(3).batch([2]).prompts == ("mole",)


def test_the_question_is_part_of_the_data(two):
    assert load(**two).digest() != load(**two, prompt="p2").digest()
    assert load(**two).digest() != load(**two, kinds=["p1"]).digest()
    assert load(**two).digest() == load(**two).digest()


def test_random_draws_by_the_sample_and_never_the_empty_one(two):
    first, again = load(**two, prompt="random"), load(**two, prompt="random")

    assert first.prompts == again.prompts
    assert all(first.prompts)
    assert set(load(**two, kinds=["p0", "c1"]).wordings) == {"p0", "c1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "p7"}, "prompt kind out of p0, p1, p2, c1 or random, got 'p7'"),
        ({"kinds": ["p7"]}, "expected kinds out of p0, p1, p2, c1, got 'p7'"),
        ({"paths": []}, "expected one or more paths, got none"),
        ({"prompts": "nowhere"}, r"expected prompts in nowhere/polyp.json, got no such file"),
    ],
)
def test_what_is_not_there_is_named(two, changes, message):
    with pytest.raises(DataError, match=message):
        load(**{**two, **changes})


def test_a_sample_without_texts_is_named(two, tmp_path):
    prompt_file(tmp_path, "mole", ("s0",))
    with pytest.raises(DataError, match=r"mole.json: expected texts by kind for sample 's1'"):
        load(**two)


def test_a_prompt_file_of_another_form_is_refused(two, tmp_path):
    (tmp_path / "prompts" / "mole.json").write_text('{"texts": []}')
    with pytest.raises(DataError, match=r"mole.json: expected 'texts' by sample id"):
        load(**two)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (disc(radius=5), "one small dark round polyp in the top left of the image"),
        (disc(radius=12, at=(32, 32)), "one medium dark round polyp in the centre of the image"),
        (
            disc(radius=16, at=(48, 32), squeeze=1.9),
            "one large dark oval polyp in the ",
        ),
        (
            disc(radius=6) | disc(radius=5, at=(16, 50)),
            "two medium dark round polyps in the top centre",
        ),
    ],
)
def test_kinds_are_worked_out_from_the_mask(mask, expected):
    image = np.where(mask, 0.2, 0.7)[None]
    words = wordings(image, mask, name="polyp", description="a growth")

    assert words["p6"].startswith(expected)
    assert list(words) == list(KINDS)
    assert (words["p0"], words["p1"], words["p7"]) == ("", "polyp", "a growth")
    assert words["p9"] == f"{words['p6']}, a growth"


def test_specks_are_no_further_lesion():
    mask = disc(radius=10)
    mask[60, 60] = True
    words = wordings(np.zeros((1, 64, 64)), mask, name="polyp", description="")

    assert words["p5"].startswith("one ")


def test_a_ragged_outline_is_irregular():
    mask = disc(radius=14, at=(32, 32))
    mask[::2] = False
    mask[:, 32] = disc(radius=14, at=(32, 32))[:, 32]

    words = wordings(np.zeros((1, 64, 64)), mask, name="mole", description="")
    assert words["p2"] == "irregular mole"


def test_an_image_without_the_class_tells_nothing():
    words = wordings(np.zeros((1, 8, 8)), np.zeros((8, 8)), name="polyp", description="d")

    assert {words[f"p{i}"] for i in range(1, 7)} == {"polyp"}


def test_colours_come_from_the_pixels_inside():
    mask = disc(radius=10)
    image = np.full((3, 64, 64), 0.8)
    image[:, mask] = np.array([0.45, 0.3, 0.2])[:, None]

    assert wordings(image, mask, name="mole", description="")["p3"] == "brown round mole"


def test_the_verb_writes_a_file_that_the_dataset_reads(tmp_path):
    folder = write(tmp_path, "polyp", masks=3)
    out = tmp_path / "prompts" / "polyp.json"
    words = ["--name", "polyp", "--description", "a growth", "--paraphrase", "a colon polyp"]
    done = CliRunner().invoke(app, ["prompts", str(folder), *words, "--output", str(out)])

    assert done.exit_code == 0, done.output
    assert "3 images" in done.output
    samples = load(paths=[str(folder)], prompts=str(out.parent), size=32, prompt="p6")
    assert samples.prompts[0] == "one medium dark round polyp in the top left of the image"
    assert samples.prompts[1].endswith("bottom left of the image")
    assert samples.prompts[2] == "polyp"
    assert samples.wordings["c1"] == ("a colon polyp",) * 3
