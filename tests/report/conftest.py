import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "palpate_synthetic", Path(__file__).parents[1] / "statistics" / "_synthetic.py"
)


@pytest.fixture(scope="session")
def synthetic():
    module = importlib.util.module_from_spec(_SPEC)
    _SPEC.loader.exec_module(module)
    return module


@pytest.fixture
def maker(synthetic, tmp_path):
    return synthetic.Maker(tmp_path, targets=("mamba",))


@pytest.fixture(scope="session")
def rich(synthetic, tmp_path_factory):
    return synthetic.rich(tmp_path_factory.mktemp("rich"))
