import json
import os
import socket
import threading
import time

import pytest

from palpate.errors import StoreError, UsageError
from palpate.view.server import ADDRESS, make_server


def test_it_listens_on_the_loopback_address_only(awkward):
    server, address = make_server(awkward.folder)
    with server:
        assert server.server_address[0] == ADDRESS == "127.0.0.1"
        assert address.startswith(f"http://127.0.0.1:{server.server_address[1]}/")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.evil.example",
        "0.0.0.0:{port}",
        "",
        None,
    ],
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(client, host):
    host = host and host.format(port=client.parts.port)
    for path in (client.root, f"{client.root}data/cells", "/"):
        status, headers, content = client.raw(path, headers={"Host": host})

        assert status == 421
        assert b"expected the host 127.0.0.1" in content
        assert b"mamba" not in content
        assert "Access-Control-Allow-Origin" not in headers


def test_two_hosts_are_refused(client):
    lines = (
        f"GET {client.root} HTTP/1.1\r\nHost: {client.parts.netloc}\r\nHost: evil.example\r\n\r\n"
    )
    with socket.create_connection((client.parts.hostname, client.parts.port), timeout=20) as sock:
        sock.sendall(lines.encode())
        assert sock.recv(200).startswith(b"HTTP/1.1 421")


def test_localhost_is_fine(client):
    host = f"LOCALHOST:{client.parts.port}"
    assert client.raw(client.root, headers={"Host": host})[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_nothing_can_be_changed(client, method):
    status, headers, _ = client.raw(client.root, method=method)

    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_the_content(client):
    path = f"{client.root}data/run"
    status, headers, content = client.raw(path, method="HEAD")
    _, _, whole = client.raw(path)

    assert (status, content) == (200, b"")
    assert headers["Content-Length"] == str(len(whole))


@pytest.mark.parametrize(
    "path",
    [
        "../run.json",
        "../../../../etc/passwd",
        "%2e%2e/run.json",
        "..%2frun.json",
        "..\\run.json",
        "run.json",
        "cells/",
        "samples",
        "/etc/passwd",
        "//etc/passwd",
        "data/../run.json",
        "data/cell/../../run",
        "data/cell/%2e%2e%2frun",
        "data/cell/" + "a" * 63,
        "data/cell/" + "A" * 64,
        "data/images/" + "a" * 64,
        "report.html/../run.json",
        "view.py",
        "page.html\x00.js".replace("\x00", "%00"),
    ],
)
def test_no_path_leaves_the_page(client, path):
    status, _, content = client.raw(client.root + path)

    assert status == 404
    assert b"schema_version" not in content
    assert b"root:" not in content


@pytest.mark.parametrize("path", ["/", "/wrong/", "/data/run", "/wrong/data/run", "/%C3/"])
def test_without_the_secret_there_is_nothing(client, path):
    status, _, content = client.raw(path)
    assert status == 404
    assert b"mamba" not in content


def test_the_secret_is_new_at_every_start(awkward):
    found = []
    for _ in range(2):
        server, address = make_server(awkward.folder)
        server.server_close()
        found.append(address.rsplit("/", 2)[1])
    assert found[0] != found[1]
    assert min(map(len, found)) >= 22  # 128 bits


def test_every_answer_forbids_foreign_content(client):
    for path in (client.root, f"{client.root}view.js", f"{client.root}data/run", "/nothing"):
        _, headers, _ = client.raw(path)
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


def test_the_page_holds_no_script_of_its_own(client):
    _, headers, content = client.raw(client.root)
    text = content.decode()

    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert text.count("<script") == text.count('<script src="') == 2
    assert "style=" not in text
    assert " on" + "click" not in text
    for name, kind in (
        ("view.js", "javascript"),
        ("source.js", "javascript"),
        ("style.css", "css"),
    ):
        status, headers, _ = client.raw(client.root + name)
        assert status == 200
        assert kind in headers["Content-Type"]


def test_a_report_is_shown_without_any_right_to_run(client, awkward):
    assert client.raw(f"{client.root}report.html")[0] == 404
    (awkward.folder / "report.html").write_text("<h1>Report</h1>")
    status, headers, content = client.raw(f"{client.root}report.html")

    assert (status, content) == (200, b"<h1>Report</h1>")
    assert "script-src" not in headers["Content-Security-Policy"]
    assert "sandbox" in headers["Content-Security-Policy"]


def test_links_out_of_the_run_are_not_followed(client, awkward, tmp_path, key_of):
    (tmp_path / "secret.html").write_text("secret")
    (awkward.folder / "report.html").symlink_to(tmp_path / "secret.html")
    assert client.raw(f"{client.root}report.html")[0] == 404

    key = key_of("gaussian_noise", severity=2)
    path = awkward.folder / "samples" / f"{key}.parquet"
    path.rename(tmp_path / "moved.parquet")
    path.symlink_to(tmp_path / "moved.parquet")
    status, data = client.json(f"samples/{key}")
    assert status == 500
    assert "expected a file of the run, got a link out of it" in data["error"]


def test_pages_of_cells_and_samples(client, key_of):
    _, first = client.json("cells", count=3)
    assert (first["total"], first["matched"], len(first["rows"])) == (10, 10, 3)
    _, last = client.json("cells", count=3, start=9)
    assert len(last["rows"]) == 1
    _, beyond = client.json("cells", count=3, start=99)
    assert beyond["rows"] == []
    key = key_of("fgsm")
    _, found = client.json(f"samples/{key}", start=50, count=999)
    assert (found["matched"], len(found["rows"])) == (60, 10)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"sort": "nothing"}, "expected one of the columns key, model"),
        ({"is.nothing": "x"}, "got 'nothing'"),
        ({"start": "-1"}, "start: expected a whole number, got '-1'"),
        ({"count": "many"}, "count: expected a whole number, got 'many'"),
        ({"is.rows": "3"}, "expected a text column to choose from, got 'rows'"),
    ],
)
def test_a_senseless_question_is_told_so(client, asked, problem):
    status, data = client.json("cells", **asked)
    assert status == 400
    assert problem in data["error"]


def test_bytes_that_are_no_text_are_refused(client):
    assert client.raw(f"{client.root}data/cells?text=%ff")[0] == 400


def test_hostile_names_stay_texts(client, key_of, hostile):
    _, page = client.json(f"samples/{key_of('fgsm')}", **{"is.reference": hostile})
    assert page["matched"] == 45
    status, headers, _ = client.raw(f"{client.root}data/cells?text={hostile[1:7]}")
    assert (status, headers["Content-Type"]) == (200, "application/json")


def test_a_damaged_cell_stops_nothing_else(client, key_of):
    columns = client.json("cells")[1]["columns"]
    place = {column["name"]: i for i, column in enumerate(columns)}
    rows = client.json("cells")[1]["rows"]
    states = [row[place["state"]] for row in rows]
    assert states == ["done"] * 4 + ["failed", "not run"] + ["damaged"] * 3 + ["done"]
    for name in ("cells", "samples", "images"):
        key = key_of(f"broken_{name}")
        assert client.json(f"cell/{key}")[0] == 200
        status, data = client.json(f"samples/{key}")
        assert status == 500
        assert key in data["error"]


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_a_cell_without_samples_says_why(client, coverage, key_of):
    status, data = client.json(f"samples/{key_of('patch_drop', coverage=coverage)}")
    assert status == 404
    assert (
        "has no samples: " + ("failed OSError: no <script>" if coverage == 0.5 else "not run")
        in data["error"]
    )


def test_cases_with_and_without_a_picture(client, key_of):
    key = key_of("fgsm")
    status, pictures = client.json(f"case/{key}", sample="s0030", trial=0)
    assert status == 200
    assert [one["caption"] for one in pictures] == ["clean", "perturbed", "change × 5"]
    assert all(one["source"].startswith("data:image/png;base64,") for one in pictures)
    assert client.json(f"case/{key}", sample="s0001", trial=0) == (200, [])
    status, data = client.json(f"case/{key}", sample="nobody", trial=0)
    assert (status, data["error"]) == (404, f"cell {key[:12]} has no sample 'nobody' in trial 0")
    assert client.json(f"case/{key}", sample="s0030", trial="x")[0] == 400


def test_a_run_that_goes_on_is_read_again(client, awkward, synthetic, key_of):
    assert client.json("run")[1]["finished"] == 9
    assert client.json("run")[1]["cells"] == 10
    key = key_of("patch_drop", coverage=0.9)
    done = awkward.folder / "cells" / f"{key_of('gaussian_noise', severity=2)}.json"
    cell = json.loads(done.read_text())
    (awkward.folder / "cells" / f"{key}.json").write_text(json.dumps(cell | {"key": key}))
    assert client.json("run")[1]["finished"] == 10

    manifest = json.loads((awkward.folder / "run.json").read_text())
    manifest["plan"] = manifest["plan"][:2]
    (awkward.folder / "run.json").write_text(json.dumps(manifest))
    os.utime(awkward.folder / "run.json", ns=(time.time_ns(), time.time_ns() + 10**9))
    assert client.json("cells")[1]["total"] == 2


def test_many_may_ask_at_once(client, key_of):
    key, found = key_of("fgsm"), []

    def ask():
        found.append(client.json(f"samples/{key}", sort="l2", down=1)[1]["rows"][0][0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["s0059"] * 8


def test_a_port_that_is_taken_is_said(awkward):
    server, _ = make_server(awkward.folder)
    with server, pytest.raises(UsageError, match=r"port \d+: cannot be had on 127.0.0.1: "):
        make_server(awkward.folder, port=server.server_address[1])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (b"", "expected JSON, got a damaged file"),
        (b"[]", "expected a JSON object"),
        (b'{"schema_version": 99}', "expected schema_version"),
        (b'{"schema_version": 1}', "expected a plan and a dataset, got a damaged file"),
        (b'{"schema_version": 1, "plan": 3, "dataset": {}}', "got a damaged file"),
        (b'{"schema_version": 1, "plan": [{"key": "../x"}], "dataset": {}}', "got a damaged file"),
    ],
)
def test_no_run_no_server(awkward, change, problem):
    (awkward.folder / "run.json").write_bytes(change)
    with pytest.raises(StoreError, match=problem):
        make_server(awkward.folder)


def test_a_plan_cannot_point_outside(awkward):
    manifest = json.loads((awkward.folder / "run.json").read_text())
    manifest["plan"][0]["key"] = "../../secret"
    (awkward.folder / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="expected SHA-256 keys in the plan, got '../../secret'"):
        make_server(awkward.folder)
