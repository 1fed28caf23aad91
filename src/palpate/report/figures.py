"""Charts as inline SVG: text stays text, and every colour is a variable of the page's style.

Matplotlib draws with placeholder colours; they are then replaced by `currentColor` and the style
sheet's variables, so that one drawing serves light, dark and print.
"""

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from palpate.report import words
from palpate.report.ladders import Ladder
from palpate.statistics.estimate import Estimate
from palpate.statistics.strata import Stratum

INK: Final = "#010101"
FAINT: Final = "#020202"
SERIES: Final = ("#0101f1", "#0101f2", "#0101f3", "#0101f4", "#0101f5", "#0101f6")
DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_WIDTH, _HEIGHT = 3.7, 2.75  # inches at 96 px: 355 px, the text width of a phone


def curve(ladder: Ladder, *, chance: float | None = None) -> str:
    """Score against dose with interval bands, one line per model.

    Args:
        ladder: at least one numeric dose.
        chance: score of always giving the most frequent answer, drawn as a reference.
    """
    figure, axes = _canvas()
    xs = _positions(ladder)
    for i, (model, line) in enumerate(ladder.lines.items()):
        rows = [ladder.clean[model], *line]
        known = [(x, r) for x, r in zip(xs, rows, strict=True) if r and r.value is not None]
        if not known:
            continue
        at = [x for x, _ in known]
        values = [r.value or 0.0 for _, r in known]
        axes.plot(at, values, markersize=4.5, linewidth=1.6, **_look(i))
        low = [v if r.low is None else r.low for v, (_, r) in zip(values, known, strict=True)]
        high = [v if r.high is None else r.high for v, (_, r) in zip(values, known, strict=True)]
        axes.fill_between(at, low, high, color=SERIES[i % 6], alpha=0.16, linewidth=0)
    if chance is not None:
        axes.axhline(chance, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
    texts = ["0", *(t for _, t in ladder.doses)]
    shown = _spread(xs, texts)
    axes.set_xticks([xs[i] for i in shown], [texts[i] for i in shown])
    axes.set_xlabel(f"{words.dose_title(ladder.dose)} (0: clean)")
    _percent_axis(axes)
    return _svg(figure, name=f"curve {ladder.title}", label=curve_text(ladder))


def curve_text(ladder: Ladder) -> str:
    """The chart in words, from the data."""
    lines: list[str] = []
    for model, rows in ladder.lines.items():
        clean = ladder.clean[model]
        points = [f"clean {words.number(clean.value)}"] if clean else []
        for (_, text), row in zip(ladder.doses, rows, strict=True):
            points.append(f"{text} {words.number(row.value if row else None)}")
        lines.append(f"{model}: {', '.join(points)}")
    metric = words.metric_name(ladder.metric).capitalize()
    return f"{metric} under {ladder.title} by {words.dose_title(ladder.dose)}. {'; '.join(lines)}."


def dots(rows: Sequence[Stratum], *, title: str, labels: Sequence[str], upright: bool) -> str:
    """SDC and DUE rate of each stratum with intervals.

    Args:
        rows: strata, drawn from the top, or from the left if upright.
        title: what they are, for the text alternative.
        labels: names for the axis.
        upright: one column per stratum instead of one line; for short labels.
    """
    tall = 0.75 + 0.24 * len(rows)
    figure, axes = _canvas() if upright else _canvas(height=tall, width=1.6 * _WIDTH)
    for i, row in enumerate(rows):
        for estimate, series, marker, shift in ((row.sdc, 1, "o", -0.16), (row.due, 0, "D", 0.16)):
            if estimate.value is None or estimate.low is None or estimate.high is None:
                continue
            ends, at = [estimate.low, estimate.high], [i + shift] * 2
            line, point = ((at, ends), (at[:1], [estimate.value]))
            line, point = (line, point) if upright else (line[::-1], point[::-1])
            axes.plot(*line, color=SERIES[series], linewidth=1.3, alpha=0.6)
            axes.plot(*point, color=SERIES[series], marker=marker, markersize=3.5)
    strata, rates = (axes.xaxis, axes.yaxis) if upright else (axes.yaxis, axes.xaxis)
    step = 1 + (len(rows) - 1) // 16 if upright else 1
    strata.set_ticks(range(0, len(rows), step), list(labels)[::step], parse_math=False)
    if upright:
        axes.set_xlim(-0.8, len(rows) - 0.2)
    else:
        axes.set_ylim(len(rows) - 0.4, -0.6)
    rates.set_major_formatter(lambda x, _: f"{x * 100:g} %")
    rates.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y" if upright else "x", color=FAINT, linewidth=0.5, alpha=0.5)
    points = "; ".join(
        f"{r.name}: SDC {_text(r.sdc)}, DUE {_text(r.due)}, {words.plural(r.trials, 'fault')}"
        for r in rows
    )
    return _svg(figure, name=f"dots {title}", label=f"SDC and DUE rate {title}. {points}.")


def swatch(index: int, *, within: str) -> str:
    """Line, dash and marker of one model, for the legend of one section."""
    figure = Figure(figsize=(0.5, 0.2), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.plot([0, 1, 2], [0, 0, 0], markersize=4.5, markevery=[1], linewidth=1.6, **_look(index))
    return _svg(figure, name=f"swatch {within} {index}", label=None)


def _look(index: int) -> Any:
    return {
        "color": SERIES[index % 6],
        "linestyle": DASHES[index % 6],
        "marker": MARKERS[index % 6],
    }


def _text(estimate: Estimate) -> str:
    return f"{words.number(estimate.value)} {words.interval(estimate.low, estimate.high)}"


def _canvas(height: float = _HEIGHT, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=0, pad=4)
    axes.xaxis.label.set_color(INK)
    axes.set_axisbelow(True)
    return figure, axes


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.5)


def _positions(ladder: Ladder) -> list[float]:
    """Where clean and the doses stand; numbers of faults by their order of magnitude."""
    doses = [float(v) for v, _ in ladder.doses]
    if ladder.dose not in words.FAULT_DOSES:
        return [0.0, *doses]
    logs = [math.log10(dose) for dose in doses]
    return [logs[0] - 1.0, *logs]


def _spread(xs: Sequence[float], texts: Sequence[str]) -> list[int]:
    """Ticks far enough apart for their labels, the largest always among them."""
    width = (max(xs) - min(xs)) or 1.0
    kept = [len(xs) - 1]
    for i in reversed(range(len(xs) - 1)):
        letters = (len(texts[kept[-1]]) + len(texts[i])) / 2
        if (xs[kept[-1]] - xs[i]) / width >= 0.019 * letters + 0.02:
            kept.append(i)
    return sorted(kept)


_COLOURS: Final[Mapping[str, str]] = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    **{c: f"var(--series-{i + 1})" for i, c in enumerate(SERIES)},
}
_ROOT = re.compile(r"<svg[^>]*viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)
_ID = re.compile(r"\sid=\"([^\"]+)\"")


def _svg(figure: Figure, *, name: str, label: str | None) -> str:
    """Inline SVG without fixed size, prefixed ids, and a text alternative (or none: decoration)."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 8}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]+;? ?", "", text)
    prefix = re.sub(r"\W+", "-", name)
    used = set(re.findall(r"[(\"]#([^)\"]+)[)\"]", text))
    text = _ID.sub(lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"([(\"])#([\w-]+)([)\"])", rf"\1#{prefix}-\2\3", text)
    for placeholder, variable in _COLOURS.items():
        text = text.replace(placeholder, variable)
    said = f'role="img" aria-label="{html.escape(label)}"' if label else 'aria-hidden="true"'
    box = _ROOT.search(text)
    assert box is not None
    return _ROOT.sub(lambda m: f'<svg viewBox="{m[1]}" {said}>', text, count=1)
