import re
from importlib.resources import files

import pytest

CSS = (files("palpate.report") / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
)


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a, b):
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _mixed(top, below, share):
    pairs = [(int(top[i : i + 2], 16), int(below[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * t + (1 - share) * b):02x}" for t, b in pairs)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_stands_out(theme):
    for name in ("ink", "muted", "link", "fail", "warn", "pass"):
        assert _contrast(theme[name], theme["paper"]) >= 4.5, name


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_stands_out_on_the_strongest_shade_of_the_heat_map(theme):
    share = float(re.search(r"calc\(var\(--shade\) \* (\d+)%\)", CSS)[1]) / 100
    assert _contrast(theme["ink"], _mixed(theme["heat"], theme["paper"], share)) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_and_markers_stand_out(theme):
    for number in range(1, 7):
        assert _contrast(theme[f"series-{number}"], theme["paper"]) >= 3, number
