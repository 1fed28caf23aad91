"""Run directories made up for tests: two models whose scores fall with the disturbance."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from palpate.outcome import Outcome, Status, Verdict
from palpate.record import CellRecord, Record, write_cell, write_json

CLASSES = ("malignant", "benign")


@dataclasses.dataclass
class Maker:
    """Writes cells of one made-up run."""

    folder: Path
    cases: int = 40
    per_case: int = 1
    targets: tuple[str, ...] = ("mamba", "resnet")
    classes: tuple[str, ...] = CLASSES
    kind: str = "classification"
    positive: int | None = 0
    storage: str = "float32"
    plan: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    not_testable: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def names(self):
        return [
            (f"s{i:04d}", f"c{i // self.per_case:04d}") for i in range(self.cases * self.per_case)
        ]

    def reference(self, i: int) -> int:
        return i % len(self.classes) if len(self.classes) > 2 else int(i % 4 != 0)

    def cell(
        self,
        target: str,
        family: str = "none",
        perturbation: str = "none",
        *,
        setting: dict[str, Any] | None = None,
        trials: int = 1,
        outcomes: list[Outcome] | None = None,
        notes: list[dict[str, Any]] | None = None,
        error: dict[str, str] | None = None,
        images: dict[str, Any] | None = None,
        written: bool = True,
    ) -> CellRecord:
        setting = setting or {}
        text = orjson.dumps([target, family, perturbation, setting], option=orjson.OPT_SORT_KEYS)
        key = hashlib.sha256(text).hexdigest()
        entry = {
            "key": key,
            "target": target,
            "defence": "none",
            "dataset": "breast",
            "family": family,
            "perturbation": perturbation,
            "setting": setting,
        }
        self.plan.append(entry)
        cell = CellRecord(
            **entry,
            status="error" if error else "ok",
            trials=trials,
            samples=0 if error else len(outcomes or []) // trials,
            notes=notes or [],
            error=error,
        )
        if written:
            write_cell(self.folder, cell, outcomes or [], images)
        return cell

    def outcome(
        self, i: int, *, right: bool, trial: int = 0, confidence: float = 0.8, **changes: Any
    ) -> Outcome:
        reference = self.reference(i)
        decided = reference if right else (reference + 1) % len(self.classes)
        rest = (1 - confidence) / max(1, len(self.classes) - 1)
        chances = tuple(confidence if c == decided else rest for c in range(len(self.classes)))
        plain = Outcome(
            sample=self.names[i][0],
            case=self.names[i][1],
            site="",
            trial=trial,
            reference=(reference,),
            decision=(decided,),
            probabilities=chances,
            score=float(right),
            last_score=float(right),
            finite=True,
            identical=False,
            verdict=Verdict.MASKED,
            linf=0.0,
            l2=0.0,
            status=Status.OK,
        )
        return dataclasses.replace(plain, **changes)

    def lost(self, i: int, **changes: Any) -> Outcome:
        """An outcome whose logits were not finite."""
        nan = (float("nan"),) * len(self.classes)
        return self.outcome(
            i,
            right=False,
            decision=(),
            probabilities=nan,
            finite=False,
            verdict=Verdict.DUE,
            **changes,
        )

    def write(self, **manifest: Any) -> Record:
        content = {
            "schema_version": 1,
            "palpate": "0.1.0",
            "identity": "f" * 64,
            "created": "2026-11-03T10:00:00+00:00",
            "command": "palpate run audit.yaml",
            "config": {
                "seed": 0,
                "storage": self.storage,
                "metrics": [],
                "statistics": {"confidence": 0.95, "resamples": 400},
                "dataset": {"name": "medmnist", "flag": "breastmnist"},
            },
            "dataset": {
                "label": "breast",
                "digest": "d" * 64,
                "samples": self.cases * self.per_case,
                "cases": self.cases,
                "task": {
                    "kind": self.kind,
                    "classes": list(self.classes),
                    "positive": self.positive,
                },
                "bounds": [0.0, 1.0],
                "shape": [1, 28, 28],
                "licence": "CC BY 4.0",
                "attribution": "Al-Dhabyani et al., Data in Brief 28 (2020)",
                "warnings": self.warnings,
            },
            "targets": [
                {
                    "label": t,
                    "digest": "a" * 64,
                    "parameters": 100_000,
                    "source": {"name": t},
                    "card": None,
                }
                for t in self.targets
            ],
            "plan": self.plan,
            "not_testable": self.not_testable,
            "environment": {
                "python": "3.11",
                "platform": "Linux",
                "device": "cpu",
                "threads": 2,
                "versions": {"torch": "2.6", "palpate": "0.1.0"},
            },
        }
        write_json(self.folder / "run.json", {**content, **manifest})
        return Record.load(self.folder)


def rich(folder: Path, *, cases: int = 40, trials: int = 12, **options: Any) -> Record:
    """Two models, all four families, a gallery, falling scores."""
    maker = Maker(folder, cases=cases, **options)
    rng = np.random.default_rng(7)
    count = cases * maker.per_case
    for number, target in enumerate(maker.targets):
        level = rng.random(count)
        clean = level < 0.88 - 0.03 * number
        maker.cell(target, outcomes=[maker.outcome(i, right=bool(clean[i])) for i in range(count)])
        for epsilon, keep in ((1 / 255, 0.7), (2 / 255, 0.5), (4 / 255, 0.2), (8 / 255, 0.02)):
            for name, extra in (("fgsm", 0.06), ("pgd", 0.0)):
                _attack(maker, target, name, epsilon, clean & (level < keep + extra), number)
        for severity in range(1, 6):
            for name in ("gaussian_noise", "defocus_blur"):
                stands = clean & (level < 0.9 - 0.09 * severity)
                rows = [
                    maker.outcome(i, right=bool(stands[i]), linf=0.1 * severity, l2=0.5 * severity)
                    for i in range(count)
                ]
                setting = {"severity": severity, "trials": 1}
                maker.cell(target, "corruptions", name, setting=setting, outcomes=rows)
        for coverage in (0.1, 0.5, 0.9):
            stands = clean & (level < 0.9 - 0.5 * coverage)
            rows = [
                maker.outcome(i, right=bool(stands[i]), linf=0.5, l2=8 * coverage)
                for i in range(count)
            ]
            setting = {"coverage": coverage, "fill": "zero", "patch_size": None, "trials": 1}
            maker.cell(target, "occlusions", "patch_drop", setting=setting, outcomes=rows)
        _faults(maker, target, trials, clean, rng)
    return maker.write()


def _attack(maker, target, name, epsilon, stands, number):
    rng = np.random.default_rng(number)
    count = len(stands)
    rows = [
        maker.outcome(
            i,
            right=bool(stands[i]),
            confidence=0.7 + 0.25 * rng.random(),
            linf=epsilon,
            l2=10 * epsilon,
        )
        for i in range(count)
    ]
    worst = np.flatnonzero(~stands)[:3]
    clean = rng.random((len(worst), 1, 28, 28)).astype(np.float32)
    moved = np.clip(clean + epsilon * rng.choice([-1, 1], clean.shape), 0, 1).astype(np.float32)
    images = {
        "sample": np.array([maker.names[i][0] for i in worst]),
        "trial": np.zeros(len(worst), dtype=np.int64),
        "clean": clean,
        "perturbed": moved,
    }
    setting = {"epsilon": epsilon, "norm": "linf"}
    if name == "pgd":
        setting |= {"steps": 20, "step_size": None, "random_start": True, "restarts": 1}
    maker.cell(target, "attacks", name, setting=setting, outcomes=rows, images=images)


def part(bit):
    if bit == 30:
        return "top exponent bit"
    return "sign" if bit == 31 else "exponent" if bit > 22 else "mantissa"


def _faults(maker, target, trials, clean, rng):
    rows, notes = [], []
    population = [
        {
            "tensor": f"stages.{i}.weight",
            "layer": f"stages.{i}",
            "group": "stages" if i else "stem",
            "elements": 1_000_000,
            "bits": 32_000_000,
            "parts": {"sign": 1e6, "top exponent bit": 1e6, "exponent": 7e6, "mantissa": 23e6},
        }
        for i in range(3)
    ]
    for trial in range(trials):
        bit = int(rng.integers(32))
        drawn_from = {"population": population} if trial == 0 else {}
        notes.append(
            {
                **drawn_from,
                "scope": "model",
                "stratum": "model",
                "share": 1.0,
                "flips": 1,
                "sites": [
                    {
                        "tensor": f"stages.{trial % 3}.weight",
                        "layer": f"stages.{trial % 3}",
                        "index": [0, trial],
                        "bit": bit,
                        "group": "stem" if trial % 3 == 0 else "stages",
                        "field": "sign" if bit == 31 else "exponent" if bit > 22 else "mantissa",
                        "part": part(bit),
                        "format": "float32",
                        "before": 0.25,
                        "after": 0.25 if bit < 23 else 8.5e37,
                    }
                ],
            }
        )
        for i in range(len(clean)):
            if bit == 30 and i % 2:
                rows.append(maker.lost(i, trial=trial))
            elif bit >= 27 and i % 3 == 0:
                rows.append(maker.outcome(i, right=not clean[i], trial=trial, verdict=Verdict.SDC))
            else:
                rows.append(maker.outcome(i, right=bool(clean[i]), trial=trial, identical=bit < 10))
    setting = {"flips": 1, "bits": "all", "scope": "model", "trials": trials}
    maker.cell(
        target,
        "faults",
        "weight_bit_flip",
        setting=setting,
        trials=trials,
        outcomes=rows,
        notes=notes,
    )
