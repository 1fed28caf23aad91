import math

import numpy as np
import orjson
import pytest

from palpate.view.sheet import (
    LONGEST,
    Query,
    QueryError,
    Sheet,
    coded_column,
    natural,
    number_column,
    text_column,
)


@pytest.fixture
def sheet():
    names = ["s10", "S2", "straße", "s2", "a", "b"]
    return Sheet(
        (
            text_column("sample", names, searched=True),
            text_column("site", ["x", "y", "x", "y", "x", "x"], facet=True),
            number_column("score", [3.0, math.nan, -1.0, 3.0, math.inf, 2.0], form="score"),
        ),
        6,
    )


def rows(sheet, **query):
    return sheet.select(Query(**query)).tolist()


def test_numbers_inside_names_sort_by_size():
    assert sorted(["s10", "s9", "s", "t1", "s010"], key=natural) == ["s", "s9", "s10", "s010", "t1"]
    assert natural("9" * 5000)  # longer than Python makes an integer of


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"text": " S2 "}, [1, 3]),
        ({"text": "SS"}, []),
        ({"text": "STRA"}, [2]),
        ({"chosen": {"site": "y"}}, [1, 3]),
        ({"chosen": {"site": "z"}}, []),
        ({"chosen": {"site": "y"}, "text": "zzz"}, []),
        ({"sort": "score"}, [2, 5, 0, 3, 1, 4]),
        ({"sort": "score", "down": True}, [0, 3, 5, 2, 1, 4]),
        ({"sort": "site"}, [0, 2, 4, 5, 1, 3]),
        ({"sort": "site", "down": True}, [1, 3, 0, 2, 4, 5]),
        ({"sort": "sample"}, [4, 5, 1, 3, 0, 2]),
    ],
)
def test_rows_are_chosen_and_sorted(sheet, query, expected):
    assert rows(sheet, **query) == expected


def test_a_page_is_part_of_what_was_chosen(sheet):
    page = sheet.page(Query(sort="score", start=2, count=2))

    assert (page["total"], page["matched"], page["start"]) == (6, 6, 2)
    assert page["rows"] == [["s10", "x", 3.0], ["s2", "y", 3.0]]
    assert [c["name"] for c in page["columns"]] == ["sample", "site", "score"]
    assert [c["kind"] for c in page["columns"]] == ["text", "text", "score"]
    assert [c["choices"] for c in page["columns"]] == [[], ["x", "y"], []]
    last = sheet.page(Query(sort="score", start=4, count=2))
    assert last["rows"] == [["S2", "y", None], ["a", "x", None]]


def test_a_page_has_an_end():
    sheet = Sheet((number_column("n", np.arange(10_000)),), 10_000)
    assert len(sheet.page(Query(count=10**9))["rows"]) == LONGEST


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"sort": "nothing"}, "expected one of the columns sample, site, score, got 'nothing'"),
        ({"chosen": {"score": "3"}}, "expected a text column to choose from, got 'score'"),
    ],
)
def test_unknown_columns_are_refused(sheet, query, problem):
    with pytest.raises(QueryError, match=problem):
        rows(sheet, **query)


def test_too_many_words_are_no_choice():
    column = text_column("id", [str(i) for i in range(401)], facet=True)
    assert Sheet((column,), 401).page(Query())["columns"][0]["choices"] == []


def test_known_words_keep_their_order_and_the_unused_are_left_out():
    column = coded_column("outcome", np.array([2, 0, 2]), ("z", "unused", "a"))
    assert column.words == ("z", "a")
    assert column.plain() == ["a", "z", "a"]


def test_an_empty_sheet_has_an_empty_page():
    sheet = Sheet((text_column("sample", [], searched=True), number_column("n", [])), 0)
    assert sheet.page(Query(text="x", sort="n"))["rows"] == []


def test_plain_data_gives_every_float_back(sheet):
    values = np.array([0.1, 1 / 3, 1e-20, 7.0, np.nan], dtype=np.float32)
    sheet = Sheet((number_column("x", values),), 5)
    (column,) = orjson.loads(orjson.dumps(sheet.plain(), option=orjson.OPT_SERIALIZE_NUMPY))[
        "columns"
    ]

    assert column["words"] is None
    assert column["values"][3:] == [7, None]
    assert (np.array(column["values"][:4], dtype=np.float32) == values[:4]).all()


def test_plain_text_says_each_word_once(sheet):
    plain = orjson.loads(orjson.dumps(sheet.plain(), option=orjson.OPT_SERIALIZE_NUMPY))
    site = plain["columns"][1]
    assert (plain["total"], site["words"], site["values"]) == (6, ["x", "y"], [0, 1, 0, 1, 0, 0])
