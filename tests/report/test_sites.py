import numpy as np
import pytest

from palpate.report.page import render
from palpate.report.sites import short_labels, site_rows, sites_view

SITES = ("kvasir_seg", "isic2017_seg", "busi_seg")


@pytest.fixture
def prompted(synthetic, tmp_path):
    def made(sites=SITES, cases=24):
        maker = synthetic.Maker(
            tmp_path, cases=cases, targets=("clip",), classes=("t",), kind="prompted_segmentation"
        )

        def cell(name, loss, family="attacks", **setting):
            rows = [
                maker.outcome(
                    i,
                    right=True,
                    score=float(np.clip(0.8 - loss * (i % len(sites)) + 0.05 * np.sin(i), 0, 1)),
                    site=sites[i % len(sites)],
                )
                for i in range(maker.cases)
            ]
            maker.cell("clip", family, name, setting=setting, outcomes=rows)

        cell("none", 0.0, family="none")
        for epsilon in (0.01, 0.03):
            for steps in (1, 40):
                cell("pgd", 10 * epsilon, epsilon=epsilon, norm="linf", steps=steps, step_size=None)
        return maker.write()

    return made


def test_one_row_per_setting_and_one_column_per_site(prompted):
    view = sites_view(site_rows(prompted()))

    (grid,) = view.grids
    assert grid.caption == "clip: Dice by site"
    assert sorted(grid.columns) == sorted(f"{s} (8 cases)" for s in SITES)
    assert [label for label, _ in grid.rows] == [
        "clean",
        "pgd · epsilon 0.01, steps 1",
        "pgd · epsilon 0.01, steps 40",
        "pgd · epsilon 0.03, steps 1",
        "pgd · epsilon 0.03, steps 40",
    ]
    at = [c.startswith("busi") for c in grid.columns].index(True)
    last = grid.rows[-1][1][at]
    assert float(last.value.split("\u00a0")[0]) == pytest.approx(20, abs=4)
    assert last.shade == pytest.approx(0.8, abs=0.04)
    assert "8 rows of 8 cases" in last.title
    assert "busi_seg, isic2017_seg and kvasir_seg: fewer than 10 cases" in view.notes[0]


def test_many_sites_are_cut_and_said(prompted):
    view = sites_view(site_rows(prompted(tuple(f"h{k}" for k in range(11)), cases=22)))

    assert len(view.grids[0].columns) == 8
    assert "3 more are not shown" in view.notes[-1]


def test_the_page_has_the_section_only_where_there_are_sites(prompted, tmp_path):
    page = render(prompted(), tmp_path / "r.html").read_text()
    assert '<h2 id="sites">' in page
    assert '<a href="#sites">' in page
    page = render(prompted(("one",)), tmp_path / "r.html").read_text()
    assert "#sites" not in page
    assert 'id="sites"' not in page


def test_a_label_says_what_tells_cells_apart():
    keys = [
        ("attacks", "prompt_edit", '{"edits":1,"kind":"typo","queries":8}'),
        ("attacks", "prompt_edit", '{"edits":1,"kind":"organ","queries":8}'),
        ("none", "none", "{}"),
    ]
    assert list(short_labels(keys).values()) == [
        "prompt edit · kind typo",
        "prompt edit · kind organ",
        "clean",
    ]
