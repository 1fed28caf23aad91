"""The papers of the repository say what is true."""

import re
from pathlib import Path

import pytest
import yaml

import palpate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAPERS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]


def test_the_citation_names_this_version_and_licence():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert found["cff-version"] == "1.2.0"
    assert (found["title"], found["version"]) == ("Palpate", palpate.__version__)
    assert found["license"] == "Apache-2.0"
    assert found["authors"]
    assert found["message"]


def test_the_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert [int(n) for n in re.findall(r"^ {3}(\d)\. ", text, re.MULTILINE)] == list(range(1, 10))


@pytest.mark.parametrize("paper", PAPERS)
def test_links_to_files_lead_somewhere(paper):
    text = (ROOT / paper).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [x for x in links if not x.startswith("http") and not (ROOT / x).exists()]

    assert missing == []


def test_the_readme_begins_with_what_a_newcomer_needs():
    heads = re.findall(r"^## (.*)", README, re.MULTILINE)

    assert heads[:2] == ["Two commands", "What it covers beside others"]
    assert {"Citation", "Documentation"} <= set(heads)
    before = README[: README.index("## Two commands")]
    assert len(re.findall(r"\.(?:\s|$)", before)) == 3  # three sentences and a picture
    assert "docs/report.png" in before


def test_issue_forms_are_valid_and_warn_of_patient_data():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    asked = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in forms}

    assert set(asked) == {"bug", "component", "config"}
    for name in ("bug", "component"):
        assert asked[name]["name"]
        assert asked[name]["description"]
        for part in asked[name]["body"]:
            assert part["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
            assert part["type"] == "markdown" or (part["id"] and part["attributes"]["label"])
    assert "No patient data" in asked["bug"]["body"][0]["attributes"]["value"]
