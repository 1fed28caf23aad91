"""`palpate view` and `palpate bundle` as a user types them."""

import os
import queue
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from palpate import cli


@pytest.fixture
def palpate(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["palpate", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


@pytest.fixture
def run(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path / "run", targets=("mamba",))
    maker.cell("mamba", outcomes=[maker.outcome(i, right=i > 1) for i in range(9)])
    return maker.write().folder


def test_view_serves_until_it_is_interrupted_and_never_imports_torch(run):
    code = (
        "import sys\n"
        "from palpate.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n"
    )
    words = [sys.executable, "-c", code, "view", str(run), "--port", "0", "--no-open"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as made:
        address = made.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/[\w-]{22,}/", address)
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"Palpate run" in answer.read()
        assert made.stdout.readline() == "only this machine can reach it; Ctrl-C ends it\n"
        os.kill(made.pid, signal.SIGINT)
        out, err = made.communicate(timeout=30)

    assert (made.returncode, out.strip()) == (130, "")
    assert err == "interrupted; run the same command again to go on\n"


def test_view_opens_a_browser_unless_told_not_to(palpate, run, monkeypatch):
    from http.server import ThreadingHTTPServer

    opened = queue.Queue()
    monkeypatch.setattr("webbrowser.open", opened.put)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda server: None)

    code, out, err = palpate("view", run)
    assert (code, err) == (0, "")
    assert opened.get(timeout=20) == out.splitlines()[0]

    assert palpate("view", run, "--no-open")[0] == 0
    assert opened.empty()


@pytest.mark.parametrize("verb", ["view", "bundle"])
def test_no_run_is_one_line(palpate, tmp_path, verb):
    code, out, err = palpate(verb, tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: no run at {tmp_path / 'nowhere'}: cannot read run.json: No such")
    assert err.count("\n") == 1


def test_view_refuses_a_senseless_port(palpate, run):
    code, out, err = palpate("view", run, "--port", "70000")
    assert (code, out) == (2, "")
    assert "Invalid value for '--port'" in err


def test_bundle_says_where_it_wrote(palpate, run, tmp_path):
    code, out, err = palpate("bundle", run)
    assert (code, out, err) == (0, f"{run / 'bundle' / 'index.html'}\n", "")
    code, out, _ = palpate("bundle", run, "--output", tmp_path / "o")
    assert (code, Path(out.strip())) == (0, tmp_path / "o" / "index.html")
    assert Path(out.strip()).is_file()


def test_bundle_leaves_other_folders_alone(palpate, run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    code, out, err = palpate("bundle", run, "--output", tmp_path / "mine")
    assert (code, out) == (2, "")
    problem = "expected a new folder or an older bundle, got other files"
    assert err == f"error: {tmp_path / 'mine'}: {problem}\n"
