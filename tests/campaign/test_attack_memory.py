"""An attack in a campaign swallows no out of memory: the worker halves the cell and says so."""

from collections import Counter

import torch

from palpate import registry
from palpate.campaign.drive import drive
from palpate.campaign.journal import entries
from palpate.record import Record


def test_the_cell_is_run_again_with_half_the_batch_and_the_journal_has_it(
    resolved, tmp_path, monkeypatch, contents
):
    cls = registry.load("attacks", "fgsm")
    whole = cls._run

    def needs(self, search, seeds):
        if len(search.images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(self, search, seeds)

    with monkeypatch.context() as small:
        small.setattr(cls, "_run", needs)
        drive(resolved("batch_size=12"), tmp_path / "run")
    events = list(entries(tmp_path / "run"))

    assert [e["batch_size"] for e in events if e["event"] == "out of memory"] == [12, 6, 12, 6]
    assert Counter(e["batch_size"] for e in events if e["event"] == "ok") == {12: 5, 3: 2}
    assert all(cell.status == "ok" for cell in Record.load(tmp_path / "run").cells)
    drive(resolved("batch_size=3"), tmp_path / "three")
    assert contents(tmp_path / "run").keys() == contents(tmp_path / "three").keys()
