"""Records compared, and runs in processes of their own."""

import os
import subprocess
import sys
import time

import pytest

from palpate import config
from palpate.campaign.plan import resolve

QUICK = ("probes=false", "perturbations.3.trials=12")


@pytest.fixture
def resolved(audit_file):
    """A small audit without probes, which only cost time here."""

    def build(*overrides, limit=12):
        return resolve(config.load(audit_file, (*QUICK, *overrides)), audit_file.parent, limit)

    return build


@pytest.fixture(scope="session")
def contents():
    """Cell, sample and image files of a run, by name: what no engine may change."""

    def read(folder):
        kinds = ("cells", "samples", "images")
        files = [p for kind in kinds for p in (folder / kind).glob("*") if p.is_file()]
        return {str(p.relative_to(folder)): p.read_bytes() for p in files}

    return read


@pytest.fixture
def palpate(audit_file):
    """Start the command in a process of its own."""
    started = []

    def start(*words, before="", **environment):
        code = f"{before}\nfrom palpate.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PALPATE_NO_PLUGINS": "1", **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()  # not for its pipes, which workers of its own may still hold
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="session")
def until():
    """Wait for a condition."""

    def wait(condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait
