"""Robustness as a test among others; pytest loads this module by itself.

::

    @pytest.mark.robustness
    def test_small_attacks_do_not_break_it(palpate_run):
        assert_robust(palpate_run, threat={"name": "pgd", "epsilon": "1/255"}, at_least=0.5)

The run is that of ``--palpate-run DIR``, or ``palpate_run`` in the configuration file, or, before
both, of ``@pytest.mark.robustness(run=DIR)``. Nothing of Palpate is imported before a test asks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from palpate.run import Run

_MARK: Final = "robustness"
_RUNS: Final = pytest.StashKey[dict[Path, "Run"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that name the run."""
    told = "Run directory that the fixture palpate_run reads."
    parser.getgroup("palpate").addoption("--palpate-run", metavar="DIR", help=told)
    parser.addini("palpate_run", help=told, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    line = f"{_MARK}(run=DIR): judges a Palpate run; every test that uses palpate_run has it"
    config.addinivalue_line("markers", line)
    config.stash[_RUNS] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the fixture, so that ``-m robustness`` finds it."""
    for item in items:
        if "palpate_run" in getattr(item, "fixturenames", ()) and not item.get_closest_marker(
            _MARK
        ):
            item.add_marker(_MARK)


@pytest.fixture
def palpate_run(request: pytest.FixtureRequest) -> "Run":
    """The finished run under test, a `palpate.Run`; each directory is read once per session."""
    from palpate.errors import StoreError
    from palpate.run import Run

    folder = _folder(request)
    known = request.config.stash[_RUNS]
    try:
        return known.setdefault(folder, known.get(folder) or Run.open(folder))
    except StoreError as error:
        raise pytest.UsageError(f"palpate_run: {error}") from None


def assert_robust(
    run: "Run",
    *,
    threat: str | Mapping[str, Any],
    metric: str = "accuracy",
    at_least: float | str | None = None,
    at_most: float | str | None = None,
    target: str | None = None,
    defence: str | None = None,
    self_checks: bool = True,
) -> None:
    """Fail unless the end of the interval keeps the limit in every cell of the threat.

    Args:
        run: from the fixture `palpate_run` or `palpate.Run.open`.
        threat: perturbation, "none" for clean, "all attacks" for the worst over all attacks; or
            `{"name": ..., parameters}` for those settings only, numbers also as "1/255".
        metric: name.
        at_least: the lower end of the interval must reach it.
        at_most: the upper end must not exceed it.
        target: label of the model; all by default.
        defence: name; all by default.
        self_checks: whether the run's checks of itself must not fail either.

    Raises:
        AssertionError: with a table of what matched.
        ConfigError: unknown names, or no limit.
    """
    __tracebackhide__ = True
    from palpate.report.gate_table import aligned, gate_table
    from palpate.statistics.gates import judge, parse_gates

    setting = {"name": threat} if isinstance(threat, str) else dict(threat)
    asked = {
        "metric": metric,
        "perturbation": setting.pop("name", None),
        "where": setting,
        "at_least": at_least,
        "at_most": at_most,
        "target": target,
        "defence": defence,
    }
    gates = parse_gates({"gates": [asked], "self_checks": self_checks}, where="assert_robust")
    found = judge(run.record, gates)
    if not found.passed:
        table = aligned(gate_table(found))
        raise AssertionError(f"not shown: {gates.gates[0].text}\n\n{table}")


def _folder(request: pytest.FixtureRequest) -> Path:
    config = request.config
    marker = request.node.get_closest_marker(_MARK)
    marked = marker.kwargs.get("run") if marker is not None else None
    option, setting = config.getoption("--palpate-run"), str(config.getini("palpate_run"))
    if marked:
        return config.rootpath / str(marked)
    if option:
        return config.invocation_params.dir / str(option)
    if setting:
        return config.rootpath / setting
    raise pytest.UsageError(
        "palpate_run: expected a run directory: --palpate-run DIR, palpate_run in the"
        " configuration file, or @pytest.mark.robustness(run=DIR)"
    )
