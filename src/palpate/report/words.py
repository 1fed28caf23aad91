"""Numbers and settings as a reader wants them."""

import math
from collections.abc import Mapping
from typing import Any, Final

from palpate.statistics._check import DOSES, fraction

FAULT_DOSES: Final = ("bit_error_rate", "flips")
NORMS: Final[Mapping[str, str]] = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
FAMILIES: Final[Mapping[str, str]] = {
    "attacks": "Attacks",
    "corruptions": "Corruptions",
    "occlusions": "Occlusions",
    "faults": "Faults",
}
PLAIN: Final = frozenset({"auc", "ece", "hd95"})
"""Metrics printed as they are; all others are shares, printed in percent."""

_NOTHING: Final = 1e-9  # what rounding leaves of a difference that is none
_ONCE: Final = ("trials", "restarts")  # not worth a word where they are 1
_DRAWN: Final = ("flips", "trials", "scope")
_OFF: Final = (0, 1, "all", "stored", "flip", "transient")
_USUAL: Final[Mapping[str, Any]] = {
    "goal": "break",
    "prompt": "same",
    "label": "reference",
    "stop_at_success": False,
    "targets": 0,
    "rescale": False,
    "loss": "ce",
    "swap_arguments": False,
    "update": "add",
    "eot": 1,
}
"""What an attack does unless told otherwise; not worth a word."""
_METRICS: Final[Mapping[str, str]] = {
    "auc": "AUC",
    "certified_accuracy": "proven accuracy",
    "ece": "ECE",
    "sdc_rate": "SDC rate",
    "due_rate": "DUE rate",
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
}


def spaced(name: str) -> str:
    """A component's name in words."""
    return name.replace("_", " ")


def metric_name(name: str) -> str:
    """A metric's name in words, with the class of a mask in brackets where there is one."""
    base, bracket, rest = name.partition("[")
    return _METRICS.get(base, spaced(base)) + (f" {bracket}{rest}" if rest else "")


def number(value: float | None, *, metric: str = "") -> str:
    """A value for print: percent for shares, three decimals otherwise, a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.3f}" if metric.partition("[")[0] in PLAIN else f"{_percent(value)}\u00a0%"
    return text.replace("-", "−")


def interval(low: float | None, high: float | None, *, metric: str = "") -> str:
    """Both ends for print, or that there is none."""
    if low is None or high is None:
        return "no interval"
    plain = metric.partition("[")[0] in PLAIN
    ends = (f"{x:.3f}" if plain else _percent(x) for x in (low, high))
    return f"[{', '.join(ends)}]".replace("-", "−")


def points(value: float) -> str:
    """A difference of two shares, in percentage points; as many digits as its interval has."""
    if abs(value) < _NOTHING:
        return "0.0\u00a0pp"
    return f"{'+' if value > 0 else ''}{_percent(value)}\u00a0pp".replace("-", "−")


def listed(names: list[str]) -> str:
    """Names as a sentence lists them."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def _percent(value: float) -> str:
    """One decimal, and more where one would print a small rate as nothing."""
    percent = value * 100
    if 0 < abs(percent) < 0.1:
        return f"{percent:.1g}" if abs(percent) >= 1e-4 else f"{percent:.0e}"
    if 99.9 < abs(percent) < 100:
        return f"{math.copysign(math.floor(abs(percent) * 100) / 100, percent):.2f}"
    return f"{percent:.1f}"


def count(value: int | float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")  # narrow no-break space


def plural(n: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count(n)} {noun}" if n == 1 else f"{count(n)} {noun}s"


def dose_of(setting: Mapping[str, Any]) -> str | None:
    """Name of the parameter that says how strong the disturbance is."""
    found = next((name for name in DOSES if setting.get(name) is not None), None)
    return found or next((name for name in FAULT_DOSES if setting.get(name)), None)


def dose_text(name: str | None, value: Any) -> str:
    """A dose without its name: 4/255, 3, 50 %."""
    if name == "epsilon" and isinstance(value, int | float):
        return fraction(float(value))
    if name == "coverage" and isinstance(value, int | float):
        return f"{value * 100:g} %"
    if name == "bit_error_rate":
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}".replace("-", "−")
    return f"{value:g}" if isinstance(value, float) else str(value)


def dose_title(name: str | None) -> str:
    """A dose's name in words."""
    return "setting" if name is None else spaced(name)


def setting_words(setting: Mapping[str, Any]) -> str:
    """A setting in words, the dose first, without what is None, empty or a single trial.

    Of faults, parameters that are off, all or one are left out too.
    """
    dose = dose_of(setting)
    words = [f"{spaced(dose)} {dose_text(dose, setting[dose])}"] if dose else []
    of_faults = dose is None or dose in FAULT_DOSES
    for name, value in setting.items():
        if name == dose or value in (None, "", [], (), {}) or (value == 1 and name in _ONCE):
            continue
        if name == "flips" and dose == "bit_error_rate":
            continue  # the rate decides their number
        if name in _USUAL and value == _USUAL[name]:
            continue
        off = not isinstance(value, bool) and value in _OFF  # True equals 1
        if of_faults and name not in _DRAWN and (off or value is False):
            continue
        words.append(NORMS[value] if name == "norm" and value in NORMS else _word(name, value))
    return ", ".join(words)


def nested(spec: Mapping[str, Any]) -> str:
    """A spec inside a setting in words: its label or name, what else it says in brackets."""
    title = spec.get("label") or spec.get("name")
    rest = ", ".join(f"{spaced(k)} {v}" for k, v in spec.items() if k not in ("name", "label"))
    if title is None:
        return rest
    return f"{spaced(str(title))} ({rest})" if rest else spaced(str(title))


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return spaced(name) if value else f"no {spaced(name)}"
    if isinstance(value, list):
        return f"{spaced(name)} {' + '.join(spaced(str(v)) for v in value)}"
    if isinstance(value, Mapping):  # a component inside another, or a library's own arguments
        return f"{spaced(name)} {nested(value)}"
    return f"{spaced(name)} {value:.4g}" if isinstance(value, float) else f"{spaced(name)} {value}"
