"""MLflow gets the rows; read back through its own client from a store in a folder."""

import json
import sys
from pathlib import Path

import pytest

import palpate
from palpate import cli
from palpate.errors import ConfigError, StoreError
from palpate.sinks._pack import COLUMNS, packed


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the light package has no other store
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return tmp_path / "store"


def read_back(store, project):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name(project)
    return client, client.search_runs([experiment.experiment_id])


def test_what_was_sent_is_what_is_read(rich, store):
    text = palpate.Run(rich).log_to("mlflow", project="breast audits", where=store.as_uri())
    client, (run,) = read_back(store, "breast audits")
    pack = packed(rich)

    assert run.info.run_id in text
    assert run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx(pack.metrics)
    assert {k: run.data.tags[k] for k in pack.origin} == pack.origin
    path = client.download_artifacts(run.info.run_id, "summary.json")
    table = json.loads(Path(path).read_text())
    assert table == {"columns": list(COLUMNS), "data": [list(row) for row in pack.rows]}


def test_no_identifier_and_no_image_is_in_the_store(rich, store):
    palpate.Run(rich).log_to("mlflow", where=store.as_uri())
    files = [path for path in store.rglob("*") if path.is_file()]
    content = b"\n".join(path.read_bytes() for path in files)
    cells = [rich.samples(cell) for cell in rich.cells]
    names = {str(n) for c in cells for column in ("sample", "case") for n in c[column]}

    assert len(names) == 80
    assert not [name for name in names if name.encode() in content]
    assert str(rich.folder).encode() not in content
    assert not {p.suffix for p in files} & {".png", ".npz", ".webp", ".jpg", ".parquet"}
    assert not any(magic in content for magic in (b"\x89PNG", b"NUMPY", b"PK\x03\x04", b"PAR1"))


def test_a_second_export_is_a_second_run(maker, store):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=i > 3) for i in range(40)])
    run = palpate.Run(maker.write())
    places = {run.log_to("mlflow", where=store.as_uri()) for _ in range(2)}

    assert len(places) == len(read_back(store, "palpate")[1]) == 2


def test_a_store_that_cannot_be_used_is_one_line(maker, store):
    with pytest.raises(StoreError, match="mlflow: cannot log to ") as caught:
        palpate.Run(maker.write()).log_to("mlflow", where="nowhere://x")
    assert "\n" not in str(caught.value)


def test_without_mlflow_it_says_what_to_install(maker, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"expected MLflow; pip install 'palpate\[mlflow\]'"):
        palpate.Run(maker.write()).log_to("mlflow")


def test_the_verb_sends(rich, store, capsys, monkeypatch):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["palpate", "export", str(rich.folder), *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    to = ("--to", "mlflow", "--tracking-uri", store.as_uri())
    code, out, _ = call(*to)
    assert code == 0
    assert "experiment 'palpate' run " in out
    code, _, err = call(*to, "--format", "csv")
    assert code == 2
    assert "expected either --format or --to, got both or neither" in err
    assert call()[0] == 2
