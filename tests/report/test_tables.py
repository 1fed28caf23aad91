from palpate.report.tables import terminal_table
from palpate.statistics.summary import summarise


def test_terminal_table_has_one_line_per_main_number(rich):
    table = terminal_table(summarise(rich))
    assert table[0] == [
        "model",
        "disturbance",
        "setting",
        "metric",
        "value",
        "95 % interval",
        "units",
    ]
    assert all(len(line) == 7 and all(isinstance(x, str) for x in line) for line in table)
    assert table[1][:4] == ["mamba", "clean", "", "accuracy"]
    assert ["mamba", "pgd", "epsilon 8/255, L∞", "robust accuracy"] in [line[:4] for line in table]
    assert {"SDC rate", "DUE rate", "AUC"} <= {line[3] for line in table}


def test_a_number_that_does_not_exist_says_why(maker):
    error = {"type": "RuntimeError", "message": "boom", "traceback": ""}
    maker.cell("mamba", error=error)
    table = terminal_table(summarise(maker.write()))
    assert table[1][4:] == ["failed: RuntimeError", "", ""]
