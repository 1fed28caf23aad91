import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from palpate.outcome import Status, Verdict
from palpate.report.page import render

HOSTILE = "<script>alert('x')</script>\" onload=$x$"


class Page(HTMLParser):
    """Tags, attributes, headings and texts of a page."""

    VOID = frozenset({"meta", "img", "link", "br", "hr", "input"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.unbalanced = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def rendered(record):
    return render(record, record.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(rich):
    return rendered(rich)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_file_needs_no_network_and_no_script(text, page):
    assert not page.all("script")
    assert not page.all("link")
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            value = attrs.get(name) or ""
            assert value.startswith(("#", "data:image/png;base64,")) or not value
        assert not any(name.startswith("on") for name in attrs)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    policy = [m["content"] for m in page.all("meta") if "Content-Security-Policy" in m.values()]
    rules = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    assert policy == [f"{rules}form-action 'none'"]


def test_the_size_stays_far_below_the_limit(text):
    assert len(text.encode()) < 2_000_000


def test_every_picture_and_chart_says_what_it_shows(page):
    assert len(page.all("img")) == 12
    assert all(len(i["alt"]) > 10 for i in page.all("img"))
    charts = [s for s in page.all("svg") if s.get("role") == "img"]
    assert len(charts) == 10  # 3 attacks, 2 corruptions, 1 occlusion, 2 x 2 fault drawings
    assert all("%" in s["aria-label"] for s in charts)
    rest = [s for s in page.all("svg") if s.get("role") != "img"]
    assert all(s["aria-hidden"] == "true" for s in rest)


def test_structure_for_readers_without_eyes(page):
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == len(page.all("h1")) == len(page.all("header")) == 1
    assert "skip" in page.all("a")[0]["class"]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for anchor in page.all("a"):
        assert anchor["href"].removeprefix("#") in ids
    for section in page.all("section"):
        assert section["aria-labelledby"] in ids
    levels = [int(t[1]) for t, _ in page.tags if t in ("h1", "h2", "h3")]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert not page.unbalanced


def test_findings_come_first_and_say_what_was_tested(page):
    sections = [s["aria-labelledby"] for s in page.all("section")]
    assert sections[:4] == ["verdict", "checks", "questions", "overview"]
    assert "2 models under 44 disturbance cells, on 40 images from breast" in page.text
    assert "It is not a medical certificate" in page.text
    findings = page.text[page.text.index("Broken by") : page.text.index("Checks of the audit")]
    assert "robust" not in findings.lower()


def test_charts_have_table_twins(page):
    for words in ("Attacks by epsilon (L∞): robust accuracy", "By bit position:", "By layer:"):
        assert words in page.text


def test_what_was_not_tested_and_where_numbers_come_from(page):
    for words in (
        "data poisoning and backdoors",
        "no defence was part",
        "not re-quantised",
        "CC BY 4.0",
        "palpate run audit.yaml",
        "SHA-256",
        "Share of ALL samples right when clean",
    ):
        assert words in page.text


def test_is_the_same_twice(rich, text):
    assert rendered(rich) == text


def test_hostile_names_are_text(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, targets=(HOSTILE,), classes=(HOSTILE, "benign"))
    maker.cell(HOSTILE, outcomes=[maker.outcome(i, right=True) for i in range(40)])
    rows = [maker.outcome(i, right=i > 3, linf=0.01) for i in range(40)]
    image = np.zeros((1, 1, 4, 4), dtype=np.float32)
    images = {
        "sample": np.array(["s0000"]),
        "trial": np.array([0]),
        "clean": image,
        "perturbed": image,
    }
    setting = {"epsilon": 0.01, "norm": HOSTILE}
    maker.cell(HOSTILE, "attacks", "fgsm", setting=setting, outcomes=rows, images=images)
    faulty = [maker.outcome(i, right=False, verdict=Verdict.SDC) for i in range(40)]
    site = {"tensor": HOSTILE, "layer": HOSTILE, "bit": 3, "field": "sign", "index": [0]}
    notes = [{"sites": [site]}]
    maker.cell(HOSTILE, "faults", "weight_bit_flip", outcomes=faulty, notes=notes)
    maker.warnings = [HOSTILE]
    error = {"type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE}
    maker.cell(HOSTILE, "corruptions", "gaussian_noise", setting={"severity": 1}, error=error)
    maker.not_testable = [
        {"target": HOSTILE, "perturbation": HOSTILE, "setting": {"a": HOSTILE}, "reason": HOSTILE}
    ]
    page = Page(rendered(maker.write(command=HOSTILE)))
    assert not page.all("script")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not page.unbalanced
    assert HOSTILE in page.text


def test_a_failed_check_stands_above_everything_else(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    stuck = [maker.outcome(i, right=True, status=Status.NO_GRADIENT) for i in range(40)]
    maker.cell(
        "mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, outcomes=stuck
    )
    page = Page(rendered(maker.write()))
    assert "1 check of the audit on itself failed" in page.text
    assert page.text.index("failed") < page.text.index("Clean: accuracy")
    assert "could not attack" in page.text


def test_failed_and_missing_cells_are_shown(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    error = {"type": "RuntimeError", "message": "boom", "traceback": "File x\nRuntimeError: boom"}
    maker.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, error=error)
    maker.cell("mamba", "attacks", "pgd", setting={"epsilon": 0.01, "norm": "linf"}, written=False)
    page = Page(rendered(maker.write()))
    assert "mamba · fgsm: RuntimeError: boom" in page.text
    assert "1 planned cell not run: mamba · pgd" in page.text


def test_one_cell_only(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    page = Page(rendered(maker.write()))
    assert "Nothing was tested" in page.text
    assert "Only one model" in page.text
    assert not page.unbalanced


def test_no_cell_at_all(maker):
    maker.cell("mamba", written=False)
    assert "No cell has finished yet" in Page(rendered(maker.write())).text


def test_outputs_that_are_not_finite(maker):
    rows = [maker.outcome(i, right=True) if i > 5 else maker.lost(i) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    setting = {"severity": 1, "trials": 1}
    lost = [maker.lost(i, l2=1.0) for i in range(40)]
    maker.cell("mamba", "corruptions", "gaussian_noise", setting=setting, outcomes=lost)
    page = Page(rendered(maker.write()))
    assert "outputs are not finite" in page.text
    assert "nan" not in page.text.lower().split()


def test_dense_task(synthetic, tmp_path):
    maker = synthetic.Maker(
        tmp_path, kind="segmentation", classes=("background", "lesion"), positive=None
    )
    flat = {"reference": (), "decision": (), "probabilities": (), "l2": 1.0}
    image = np.zeros((1, 3, 8, 8), dtype=np.float32)
    images = {
        "sample": np.array(["s0000"]),
        "trial": np.array([0]),
        "clean": image,
        "perturbed": image,
    }
    for target in ("mamba", "resnet"):
        rows = [maker.outcome(i, right=True, score=0.9 - i / 400, **flat) for i in range(40)]
        maker.cell(target, outcomes=rows)
        for severity in (1, 2):
            rows = [
                maker.outcome(i, right=True, score=0.8 - severity / 9, **flat) for i in range(40)
            ]
            setting = {"severity": severity, "trials": 1}
            maker.cell(
                target,
                "corruptions",
                "gaussian_noise",
                setting=setting,
                outcomes=rows,
                images=images,
            )
    page = Page(rendered(maker.write()))
    assert "Corruptions by severity: Dice" in page.text
    assert "Dice 0.689" in page.text
    assert not page.unbalanced


def test_multi_label_task(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, kind="multi_label", classes=("a", "b", "c"), positive=None)
    for family, name, share in (("none", "none", 1.0), ("corruptions", "gaussian_noise", 2 / 3)):
        rows = [
            maker.outcome(
                i,
                right=True,
                reference=(1, 0, i % 2),
                decision=(1, 0, i % 2 if share == 1 else 1 - i % 2),
                probabilities=(0.9, 0.1, 0.5),
                score=share,
                l2=1.0,
            )
            for i in range(40)
        ]
        maker.cell(
            "mamba", family, name, setting={"severity": 1} if share < 1 else {}, outcomes=rows
        )
    page = Page(rendered(maker.write()))
    assert "66.7 %" in page.text


def test_no_tensor_library_is_imported(rich, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from palpate.record import Record; from palpate.report.page import render\n"
        f"render(Record.load(Path({str(rich.folder)!r})), Path({str(tmp_path / 'r.html')!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "r.html").exists()
