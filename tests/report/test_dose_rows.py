"""One sample at every dose: which cells make a row, what is drawn, and what there is room for."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from palpate.report.dose_rows import dose_rows
from palpate.report.page import render

DOSES = (0.1, 0.01, 0.03)


def pixels(picture):
    kind, _, content = picture.source.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


def arrays(clean, moved, *, sample="s0000", **masks):
    found = {"sample": np.array([sample]), "trial": np.array([0]), "right": np.array([True])}
    found |= {"clean": clean[None], "perturbed": moved[None]}
    found |= {name: mask[None].astype(np.uint8) for name, mask in masks.items()}
    return {f"followed_{name}": array for name, array in found.items()}


def ladder(maker, name="fgsm", *, doses=DOSES, family="attacks", **extra):
    clean = np.full((1, 8, 8), 0.5, dtype=np.float32)
    for dose in doses:
        rows = [maker.outcome(i, right=dose < 0.03) for i in range(maker.cases)]
        setting = {"epsilon": dose, "norm": "linf", **extra}
        images = arrays(clean, clean + np.float32(dose))
        maker.cell("mamba", family, name, setting=setting, outcomes=rows, images=images)


@pytest.fixture
def plain(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(maker.cases)])
    return maker


def test_a_row_goes_from_clean_over_rising_doses_to_the_change(plain):
    ladder(plain)
    found = dose_rows(plain.write())

    (row,) = found.rows
    assert (row.title, row.sample, found.left_out) == ("mamba · fgsm, L∞", "s0000", 0)
    assert [p.caption.partition(":")[0] for p in row.pictures] == [
        "clean",
        "epsilon 0.01",
        "epsilon 0.03",
        "epsilon 0.1",
        "change at epsilon 0.01, ×\u00a050",
    ]
    right, wrong = "malignant (80.0\u00a0%)", "benign (80.0\u00a0%)"
    said = [p.caption.partition(": ")[2] for p in row.pictures[:-1]]
    assert said == [right, right, wrong, wrong]
    assert all(p.alt.startswith("Sample s0000, ") for p in row.pictures)
    levels = [pixels(p).mean() / 255 for p in row.pictures]
    assert levels == pytest.approx([0.5, 0.51, 0.53, 0.6, 1.0], abs=0.01)


def test_settings_beside_the_dose_make_rows_of_their_own(plain):
    ladder(plain, "pgd", steps=1)
    ladder(plain, "pgd", steps=40)
    ladder(plain, "pgd", doses=(0.1,), steps=80)  # one dose is no ladder

    titles = [row.title for row in dose_rows(plain.write()).rows]
    assert titles == ["mamba · pgd, L∞, steps 1", "mamba · pgd, L∞, steps 40"]


def test_a_cell_that_follows_another_sample_is_left_out(plain):
    ladder(plain, doses=(0.01, 0.03))
    clean = np.zeros((1, 8, 8), dtype=np.float32)
    rows = [plain.outcome(i, right=True) for i in range(plain.cases)]
    other = arrays(clean, clean, sample="s0001")
    setting = {"epsilon": 0.1, "norm": "linf"}
    plain.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows, images=other)

    (row,) = dose_rows(plain.write()).rows
    assert len(row.pictures) == 4


def test_masks_are_outlined_and_a_moved_reference_goes_along(maker):
    maker.kind, maker.classes = "segmentation", ("background", "lesion")
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    image = np.full((1, 96, 96), 0.5, dtype=np.float32)
    left, right = np.zeros((96, 96), dtype=bool), np.zeros((96, 96), dtype=bool)
    left[20:76, 10:40] = True
    right[20:76, 56:86] = True
    nothing = np.zeros_like(left)
    masks = {"reference_mask": left, "clean_mask": nothing, "moved_mask": nothing}
    for dose in (1, 2):
        rows = [maker.outcome(i, right=False) for i in range(40)]
        images = arrays(image, image, **masks, perturbed_mask=right)
        setting = {"severity": dose}
        maker.cell("mamba", "corruptions", "shift", setting=setting, outcomes=rows, images=images)

    found = dose_rows(maker.write())
    (row,) = found.rows
    clean, moved = (pixels(p) for p in row.pictures[:2])
    assert found.outlined
    assert "answer outlined in orange, reference in blue" in row.pictures[1].alt

    def blue_over_red(picture, column):
        red, _, blue = picture[25:70, column].mean(axis=0)
        return blue - red

    assert blue_over_red(clean, 10) > 40
    assert abs(blue_over_red(moved, 10)) < 10  # the reference has moved out of the picture
    assert blue_over_red(moved, 56) < -40
    assert abs(blue_over_red(clean, 25)) < 10  # an outline, not a surface


def test_what_has_no_room_is_counted_and_every_component_comes_first(plain):
    for steps in (1, 2, 3):
        ladder(plain, "pgd", steps=steps)
    ladder(plain, "fgsm")
    ladder(plain, "noise", family="corruptions")
    record = plain.write()
    whole = dose_rows(record)
    costs = {row.title: sum(len(p.source) for p in row.pictures) for row in whole.rows}
    assert len(costs) == 5

    first, _, _, fgsm, noise = costs
    for kept, room in (((first, noise), 0), ((first, fgsm, noise), costs[fgsm])):
        few = dose_rows(record, budget=costs[first] + costs[noise] + room)
        assert tuple(row.title for row in few.rows) == kept
        assert few.left_out == 5 - len(kept)


def test_volumes_show_their_middle_slice(plain):
    volume = np.zeros((1, 5, 8, 8), dtype=np.float32)
    volume[:, 2] = 1.0
    for dose in (0.1, 0.2):
        rows = [plain.outcome(i, right=True) for i in range(plain.cases)]
        setting = {"epsilon": dose, "norm": "linf"}
        images = arrays(volume, volume)
        plain.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows, images=images)

    (row,) = dose_rows(plain.write()).rows
    assert pixels(row.pictures[0]).mean() > 250


def test_the_page_has_the_rows_and_stays_without_them(plain, rich, tmp_path):
    ladder(plain)
    text = render(plain.write(), tmp_path / "with.html").read_text()
    assert '<a href="#doses">Dose by dose</a>' in text
    assert "Outlines:" not in text  # of classes there are none
    assert text.count('src="data:image/webp') == 5

    older = render(rich, tmp_path / "without.html").read_text()
    assert "Dose by dose" not in older
