"""One finding of the audit about itself."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Final, Literal

from palpate.record import CellRecord
from palpate.statistics.paired import label

GRADIENT_FREE = frozenset(
    {"square", "boundary", "hop_skip_jump", "spsa", "nes", "simba", "random_search"}
)
TRANSFER = frozenset({"transfer"})
# one change for all samples is weaker than a search for each, however well it was searched
ONE_FOR_ALL = frozenset({"universal"})
Verdict = Literal["pass", "warn", "fail", "not run"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        check: what was examined.
        status: "pass", "warn", "fail" or "not run".
        cell: where, in words; empty for the whole run.
        evidence: the numbers behind the status, or why it was not run.
        advice: what to do; empty where it passes.
    """

    check: str
    status: Verdict
    cell: str
    evidence: str
    advice: str = ""


def checked(found: Sequence[Check], name: str, examined: Sized, what: str) -> list[Check]:
    """The findings, or one pass that says what was examined; nothing where nothing was."""
    if found or not len(examined):
        return list(found)
    return [Check(name, "pass", "", f"{what} ({len(examined)} examined)")]


def named(cell: CellRecord, *, setting: bool = True) -> str:
    """A cell in words."""
    return _words(label(cell), cell.perturbation, cell.setting if setting else {})


def named_entry(entry: Mapping[str, Any]) -> str:
    """A planned cell in words."""
    defence = entry["defence"]
    model = entry["target"] if defence == "none" else f"{entry['target']} + {defence}"
    return _words(model, entry["perturbation"], entry["setting"])


def _words(model: str, perturbation: str, setting: Mapping[str, Any]) -> str:
    if perturbation == "none":
        return f"{model}, clean"
    words = [*_inside(setting), *(f"{k} {_short(v)}" for k, v in setting.items() if k in _SHOWN)]
    words += [f"loss {setting['loss']}"] if setting.get("loss", "ce") != "ce" else []
    words += ["arguments exchanged"] if setting.get("swap_arguments") else []
    return ", ".join([model, perturbation.replace("_", " "), *words])


DOSES: Final = ("epsilon", "severity", "coverage")
"""Parameters that say how strong a disturbance is; a component has one of them."""

_SHOWN: Final = (*DOSES, "norm", "kind", "scope", "flips")


def _inside(setting: Mapping[str, Any]) -> list[str]:
    """The names of components inside another: whose attack, on what, of what."""
    named: list[str] = []
    for key in ("attack", "surrogate", "perturbation"):
        value = setting.get(key)
        spec = value if isinstance(value, Mapping) else {"name": value}
        title = spec.get("label") or spec.get("name")
        named += [f"{key} {title}"] if title else []
    return named


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return fraction(value)


def fraction(value: float) -> str:
    """Short decimals as such, quarter multiples of 1/255 as fractions, other numbers rounded."""
    quarters = value * 1020
    if float(f"{value:.2g}") == value or not 0 < value < 1:
        return f"{value:g}"
    if abs(quarters - round(quarters)) < 1e-6:
        return f"{round(quarters) / 4:g}/255"
    return f"{value:.4g}"
