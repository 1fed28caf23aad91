"""In this process, one cell after the other."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import final

from typing_extensions import override

from palpate.campaign.engine import Engine, Finished
from palpate.campaign.plan import Cell
from palpate.campaign.worker import Worker


@final
class LocalEngine(Engine):
    """No processes, no ports; what tests, notebooks and small audits use."""

    @override
    def run(self, cells: Sequence[Cell], make_worker: Callable[[], Worker]) -> Iterator[Finished]:
        worker = make_worker()
        for cell in cells:
            start = time.perf_counter()
            record = worker.run(cell)
            yield Finished(cell, record, time.perf_counter() - start)
