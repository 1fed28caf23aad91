"""A run that is awkward in every way, and a server over it."""

import http.client
import json
import shutil
import threading
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest

from palpate.outcome import Status, Verdict
from palpate.record import Record
from palpate.view.server import make_server

HOSTILE = "<script>document.title='owned'</script>\"&"
CLASSES = ("malignant", HOSTILE)


def images_of(maker, *places, shape=(1, 8, 8), **more):
    rng = np.random.default_rng(3)
    clean = rng.random((len(places), *shape)).astype(np.float32)
    return {
        "sample": np.array([maker.names[i][0] for i in places]),
        "trial": np.zeros(len(places), dtype=np.int64),
        "clean": clean,
        "perturbed": np.clip(clean + 0.05, 0, 1).astype(np.float32),
        **more,
    }


@pytest.fixture(scope="session")
def _built(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("awkward") / "run"
    maker = synthetic.Maker(folder, targets=("mamba",), classes=CLASSES, cases=60)
    sites = ("", "B", "A")

    def rows(broken=(), lost=(), stuck=()):
        made = []
        for i in range(60):
            more = {"site": sites[i % 3], "linf": 0.01 * (i > 0), "l2": 0.1 * i}
            if i in lost:
                made.append(maker.lost(i, **more))
                continue
            status = Status.NO_GRADIENT if i in stuck else Status.OK
            right = i not in broken and i != 5
            made.append(maker.outcome(i, right=right, status=status, **more))
        return made

    maker.cell("mamba", outcomes=rows())
    setting = {"epsilon": 4 / 255, "norm": "linf"}
    maker.cell(
        "mamba",
        "attacks",
        "fgsm",
        setting=setting,
        outcomes=rows(broken=(2, 10, 30), lost=(7,), stuck=(8,)),
        images=images_of(maker, 30, 2),
    )
    for severity in (10, 2):
        maker.cell(
            "mamba",
            "corruptions",
            "gaussian_noise",
            setting={"severity": severity},
            outcomes=rows(broken=(1,)),
        )
    error = {"type": "OSError", "message": f"no {HOSTILE}", "traceback": ""}
    maker.cell("mamba", "occlusions", "patch_drop", setting={"coverage": 0.5}, error=error)
    maker.cell("mamba", "occlusions", "patch_drop", setting={"coverage": 0.9}, written=False)
    damaged = []
    for name, end in (("cells", "json"), ("samples", "parquet"), ("images", "npz")):
        cell = maker.cell(
            "mamba",
            "corruptions",
            f"broken_{name}",
            setting={"severity": 1},
            outcomes=rows(broken=(1,)),
            images=images_of(maker, 1),
        )
        damaged.append(folder / name / f"{cell.key}.{end}")
    faults = [
        maker.outcome(i, right=(i + t) % 7 > 0, trial=t, verdict=Verdict.SDC if i % 2 else "masked")
        for t in range(3)
        for i in range(60)
    ]
    notes = [
        {"flips": 1, "sites": [{"tensor": f"head.{t}", "index": [0, t], "bit": 30}]}
        for t in range(3)
    ]
    maker.cell(
        "mamba",
        "faults",
        "weight_bit_flip",
        setting={"flips": 1, "trials": 3},
        trials=3,
        outcomes=faults,
        notes=notes,
    )
    manifest = maker.write().manifest
    for path in damaged:
        path.write_bytes(b"PK\x03\x04 damaged")
    return Record(folder, manifest, ())


@pytest.fixture
def awkward(_built, tmp_path):
    """A hostile class, two sites, every outcome, a failed, a missing and three damaged cells."""
    shutil.copytree(_built.folder, tmp_path / "run")
    return Record(tmp_path / "run", _built.manifest, ())


@pytest.fixture
def hostile():
    """Name of a class that would be a script if it were not shown as a text."""
    return HOSTILE


@pytest.fixture
def key_of(awkward):
    """Key of one planned cell by its disturbance and setting."""

    def find(perturbation, **setting):
        (entry,) = [
            e
            for e in awkward.manifest["plan"]
            if e["perturbation"] == perturbation and e["setting"].items() >= setting.items()
        ]
        return entry["key"]

    return find


class Client:
    """Asks the server as a browser, or as somebody else."""

    def __init__(self, address):
        self.address = address
        self.parts = urlsplit(address)
        self.root = self.parts.path

    def raw(self, path, method="GET", headers=None, body=None):
        connection = http.client.HTTPConnection(self.parts.hostname, self.parts.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": self.parts.netloc, **(headers or {})}.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def json(self, path, **asked):
        query = f"?{urlencode(asked)}" if asked else ""
        status, _, content = self.raw(f"{self.root}data/{path}{query}")
        return status, json.loads(content)


@pytest.fixture
def served():
    """Serve a run directory, and stop at the end."""
    running = []

    def serve(folder):
        server, address = make_server(folder)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        running.append((server, thread))
        return Client(address)

    yield serve
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(served, awkward):
    return served(awkward.folder)
