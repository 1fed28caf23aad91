"""The page in a real browser: by keyboard alone, with a thousand cells, and with axe-core."""

import json
import shutil

import numpy as np
import pytest

from palpate.report import comparison
from palpate.report.page import render
from palpate.statistics.compare import compare
from palpate.view.bundle import write_bundle
from palpate.view.files import RunFiles

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """Open an address; a script error, a console error or a foreign request fails the test."""
    complaints, pages = [], []

    def go(address, *, colour="light", width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colour)
        page.set_default_timeout(20_000)
        pages.append(page)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if _is_error(m) else None)
        home = address.rsplit("/", 1)[0]
        page.on(
            "request",
            lambda r: None if r.url.startswith((home, "data:")) else complaints.append(r.url),
        )
        page.goto(address)
        return page

    yield go
    for page in pages:
        page.close()
    assert complaints == []


def _is_error(message):
    # the browser itself notes an answer of the server that says what is damaged
    return message.type == "error" and "status of 500" not in message.text


@pytest.fixture(params=["view", "bundle"])
def address(request, awkward, served, tmp_path):
    """The same run from the server, and from the disk without one."""
    if request.param == "view":
        return served(awkward.folder).address
    return write_bundle(awkward.folder, tmp_path / "out").as_uri()


def heading(page):
    return page.locator("#heading").text_content()


def column(page, title):
    """The texts of one column of the table."""
    heads = [text.strip() for text in page.locator("thead th").all_text_contents()]
    place = heads.index(title) + 1
    return page.locator(f"tbody tr > :nth-child({place})").all_text_contents()


def status(page, text):
    page.locator("#status", has_text=text).wait_for()


def focused(page, text):
    page.locator("#body .open:focus", has_text=text).wait_for()


def open_cell(page, disturbance):
    page.locator("tbody tr", has_text=disturbance).first.locator("a").click()
    page.locator("tbody button.open").first.wait_for()


def violations(page, **rules):
    from axe_playwright_python.sync_playwright import Axe

    # a page from the disk may not fetch its own styles again
    found = Axe().run(page, options={"preload": False, **rules}).response["violations"]
    return [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found]


def test_the_keyboard_is_enough(address, visit, hostile):
    page = visit(address)
    status(page, "10 cells")
    press = page.keyboard.press

    press("ArrowDown")
    for _ in range(3):
        press("ArrowDown")
    press("ArrowUp")
    press("ArrowUp")
    page.locator("tr[data-row='1'] a:focus").wait_for()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("Enter")
    status(page, "60 rows")
    assert heading(page) == "mamba · fgsm · epsilon 4/255, L∞"
    focused(page, "s0030")

    press("Enter")
    page.locator("#shots img").nth(2).wait_for()
    assert page.locator("#case").text_content() == "s0030"
    page.locator("#found", has_text="Row 1 of 60. 3 pictures").wait_for()
    alts = [image.get_attribute("alt") for image in page.locator("#shots img").all()]
    assert alts[0].startswith(f"Clean image s0030: {hostile} (")
    press("ArrowRight")
    page.locator("#case", has_text="s0002").wait_for()
    press("ArrowRight")
    page.locator("#found", has_text="No picture of this row was kept").wait_for()
    press("ArrowLeft")
    press("Escape")
    assert not page.locator("#dialog").is_visible()
    focused(page, "s0002")

    press("/")
    assert page.evaluate("document.activeElement.name") == "text"
    page.keyboard.type("s001")
    status(page, "10 of 60 rows")
    press("ArrowDown")
    press("End")
    focused(page, "s0019")
    press("Escape")
    status(page, "10 cells")
    page.locator("tr[data-row='1'] a:focus").wait_for()


def test_pages_turn_by_key_and_button(address, visit):
    page = visit(address)
    open_cell(page, "weight bit flip")
    status(page, "180 rows")
    page.keyboard.press("ArrowRight")
    page.locator("#place", has_text="51 to 100").wait_for()
    page.locator("#next").click()
    page.locator("#place", has_text="101 to 150").wait_for()
    page.keyboard.press("PageDown")
    page.locator("#place", has_text="151 to 180").wait_for()
    assert page.locator("#next").is_disabled()
    page.keyboard.press("ArrowLeft")
    page.locator("#place", has_text="101 to 150").wait_for()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.locator("#found", has_text="Row 150 of 180").wait_for()
    page.locator("#after").click()
    page.locator("#found", has_text="Row 151 of 180").wait_for()
    page.locator("#before").click()
    page.locator("#found", has_text="Row 150 of 180").wait_for()


def test_filters_and_order_survive_a_reload(address, visit, hostile):
    page = visit(address)
    open_cell(page, "fgsm")
    page.get_by_label("outcome", exact=True).select_option("broken")
    status(page, "3 of 60 rows")
    page.get_by_label("site", exact=True).select_option("unknown")
    status(page, "1 of 60 rows")
    page.locator("#clear").click()
    status(page, "60 rows")
    page.get_by_label("class", exact=True).select_option(hostile)
    status(page, "45 of 60 rows")
    page.get_by_role("button", name="L2").click()
    page.get_by_role("button", name="L2").click()
    page.locator("[aria-sort=descending]").wait_for()
    assert column(page, "sample")[:2] == ["s0059", "s0058"]
    before = column(page, "sample")
    page.reload()
    status(page, "45 of 60 rows")
    assert column(page, "sample") == before
    assert (
        page.get_by_label("class", exact=True).evaluate("one => one.selectedOptions[0].text")
        == hostile
    )


def test_doses_and_states_filter_the_cells(address, visit):
    page = visit(address)
    status(page, "10 cells")
    doses = page.get_by_label("dose", exact=True).locator("option").all_text_contents()
    severities = [dose for dose in doses if dose.startswith("severity")]
    assert severities == ["severity 1", "severity 2", "severity 10"]
    page.get_by_label("dose", exact=True).select_option("severity 10")
    status(page, "1 of 10 cells")
    page.get_by_label("dose", exact=True).select_option("all")
    page.get_by_label("state", exact=True).select_option("damaged")
    status(page, "3 of 10 cells")
    page.get_by_label("state", exact=True).select_option("failed")
    status(page, "1 of 10 cells")
    page.locator("tbody a").click()
    page.locator("#lead", has_text="This cell is failed. OSError: no <script>").wait_for()
    page.keyboard.press("Escape")
    status(page, "1 of 10 cells")


def test_a_damaged_cell_is_said(address, visit):
    page = visit(address)
    page.locator("tbody tr", has_text="broken samples").locator("a").click()
    page.locator("#problem", has_text="cannot be read").wait_for()
    page.go_back()
    status(page, "10 cells")


def test_a_hostile_class_is_a_text(address, visit, hostile):
    page = visit(address)
    open_cell(page, "fgsm")
    assert hostile in column(page, "class")
    page.locator("tbody button.open").first.click()
    page.locator("#shots img").first.wait_for()
    assert page.locator("#facts dd", has_text=hostile).count() == 2
    assert "owned" not in page.title()
    assert page.locator("script").count() == 2


@pytest.mark.parametrize(
    ("address", "colour", "width"),
    [("view", "light", 1280), ("bundle", "dark", 390)],
    indirect=["address"],
)
def test_axe_finds_nothing_in_the_page(address, visit, colour, width):
    page = visit(address, colour=colour, width=width)
    status(page, "10 cells")
    assert violations(page) == []
    open_cell(page, "fgsm")
    assert violations(page) == []
    page.locator("tbody button.open").first.click()
    page.locator("#shots img").first.wait_for()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.locator("tbody tr", has_text="broken samples").locator("a").click()
    page.locator("#problem:visible").wait_for()
    assert violations(page) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(address, visit, width):
    page = visit(address, width=width)
    status(page, "10 cells")
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    open_cell(page, "fgsm")
    assert not page.evaluate(wide)
    page.locator("tbody button.open").first.click()
    page.locator("#shots img").first.wait_for()
    assert not page.evaluate(wide)


def test_view_and_bundle_show_the_same(awkward, served, visit, tmp_path):
    from_server = visit(served(awkward.folder).address)
    from_disk = visit(write_bundle(awkward.folder, tmp_path / "out").as_uri())
    cell = next(e["key"] for e in awkward.manifest["plan"] if e["perturbation"] == "fgsm")
    faults = next(e["key"] for e in awkward.manifest["plan"] if e["family"] == "faults")
    states = ["#sort=broken&down=1", "#text=NOISE&sort=dose", "#is.family=corruptions&sort=setting"]
    states += ["#sort=state", "#sort=pictures&start=3"]
    ends = ["", "&sort=chance", "&text=S001", "&sort=outcome&is.outcome=right&start=2"]
    states += [f"#cell={key}{end}" for key in (cell, faults) for end in ends]
    states += [f"#cell={cell}&sort=l2&down=1", f"#cell={faults}&sort=fault&down=1&start=50"]
    for state in states:
        shown = []
        for page in (from_server, from_disk):
            page.evaluate("state => { location.hash = state }", state)
            page.wait_for_timeout(60)
            page.locator("body:not([aria-busy])").wait_for()
            shown.append(page.locator("main").inner_text())
        assert shown[0] == shown[1], state


def thousand(maker):
    """A thousand cells; all but the first two are copies under other names."""
    rows = [maker.outcome(i, right=i > 3) for i in range(20)]
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(20)])
    first = maker.cell("mamba", "attacks", "fgsm", setting={"epsilon": 1 / 2550}, outcomes=rows)
    cell, samples = (
        (maker.folder / folder / f"{first.key}.{end}").read_bytes()
        for folder, end in (("cells", "json"), ("samples", "parquet"))
    )
    for step in range(2, 1000):
        key = f"{step:064x}"
        setting = {"epsilon": step / 2550}
        maker.plan.append({**maker.plan[1], "key": key, "setting": setting})
        (maker.folder / "samples" / f"{key}.parquet").write_bytes(samples)
        (maker.folder / "cells" / f"{key}.json").write_bytes(
            json.dumps({**json.loads(cell), "key": key, "setting": setting}).encode()
        )
    return maker.write()


def test_a_thousand_cells_stay_quick(synthetic, served, visit, tmp_path):
    record = thousand(synthetic.Maker(tmp_path / "run", targets=("mamba",), cases=20))
    client = served(record.folder)
    read = []
    real = RunFiles.cell
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFiles, "cell", lambda files, key: read.append(key) or real(files, key))
        page = visit(client.address)
        status(page, "1\u202f000 cells")
        assert page.locator("tbody tr").count() == 50
        # the list needs the files of what it shows, and the clean cell: no test of seconds here
        assert len(set(read)) == 50
        page.keyboard.press("/")
        page.keyboard.type("99")
        page.locator("#status", has_text=" of 1\u202f000 cells").wait_for()
        assert len(set(read)) <= 50
    page.locator("#clear").click()
    page.get_by_role("button", name="broken").click()
    page.locator("[aria-sort=ascending]").wait_for()
    status(page, "1\u202f000 cells")
    assert column(page, "broken")[:2] == ["4", "4"]


@pytest.mark.parametrize(
    ("colour", "width", "rules"),
    [
        ("light", 1280, {}),
        ("dark", 390, {"runOnly": ["color-contrast", "scrollable-region-focusable"]}),
    ],
)
def test_axe_finds_nothing_in_the_report(synthetic, visit, tmp_path, colour, width, rules):
    record = synthetic.rich(tmp_path, cases=8, trials=6, targets=("mamba",))
    page = visit(render(record, tmp_path / "report.html").as_uri(), colour=colour, width=width)
    assert violations(page, **rules) == []


def test_axe_finds_nothing_in_a_comparison(synthetic, visit, tmp_path):
    runs = []
    for name, lost in (("a", 1), ("b", 20)):
        maker = synthetic.Maker(tmp_path / name, targets=("mamba",))
        maker.cell("mamba", outcomes=[maker.outcome(i, right=i > lost) for i in range(40)])
        runs.append(maker.write())
    page = visit(comparison.render(compare(*runs), tmp_path / "compare.html").as_uri())
    assert violations(page) == []


def test_masks_are_laid_over_the_pictures(synthetic, served, visit, tmp_path):
    classes = ("background", "lesion")
    maker = synthetic.Maker(
        tmp_path / "run", targets=("unet",), kind="segmentation", classes=classes
    )
    dense = {"reference": (), "decision": (), "probabilities": ()}
    maker.cell("unet", outcomes=[maker.outcome(i, right=True, **dense) for i in range(3)])
    image, mask = np.zeros((1, 1, 8, 8), dtype=np.float32), np.zeros((1, 8, 8), dtype=np.uint8)
    images = {
        "sample": np.array(["s0001"]),
        "trial": np.array([0]),
        "clean": image,
        "perturbed": image,
        **dict.fromkeys(("reference_mask", "clean_mask", "perturbed_mask"), mask),
    }
    rows = [
        maker.outcome(i, right=True, **(dense | {"score": 1 - 0.5 * (i == 1)})) for i in range(3)
    ]
    maker.cell("unet", "attacks", "fgsm", setting={"epsilon": 0.1}, outcomes=rows, images=images)
    maker.write()
    page = visit(served(tmp_path / "run").address)
    open_cell(page, "fgsm")
    assert column(page, "outcome") == ["worse than clean", "not worse", "not worse"]
    page.locator("tbody button.open").first.click()
    page.locator("#shots img").nth(4).wait_for()
    captions = page.locator("#shots figcaption").all_text_contents()
    assert captions[0] == "clean: Dice 1.000 (green right, orange extra, blue missed)"
    assert captions[1] == "perturbed: Dice 0.500 (green right, orange extra, blue missed)"
    assert captions[2:] == ["clean", "perturbed", "change × 1000"]
