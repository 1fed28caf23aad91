from palpate.report.ladders import ladders
from palpate.statistics.summary import summarise


def test_doses_rise_and_every_model_has_a_line(rich):
    found = ladders(summarise(rich), "classification")
    assert [x.title for x in found][:3] == ["fgsm (L∞)", "pgd (L∞)", "all attacks (L∞)"]
    for ladder in found:
        values = [v for v, _ in ladder.doses if v is not None]
        assert values == sorted(values)
        assert set(ladder.lines) == {"mamba", "resnet"}
        assert all(len(line) == len(ladder.doses) for line in ladder.lines.values())


def test_settings_that_differ_are_named_in_the_title(maker):
    rows = [maker.outcome(i, right=True, linf=0.001) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    for steps in (10, 40):
        setting = {"epsilon": 0.01, "norm": "linf", "steps": steps}
        maker.cell("mamba", "attacks", "pgd", setting=setting, outcomes=rows)
    found = ladders(summarise(maker.write()), "classification")
    assert [x.title for x in found][:2] == ["pgd (L∞, steps 10)", "pgd (L∞, steps 40)"]


def test_a_switch_that_is_on_is_named_in_the_title(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    for swap in (False, True):
        setting = {"epsilon": 0.01, "norm": "linf", "loss": "bce", "swap_arguments": swap}
        rows = [maker.outcome(i, right=i > 20, linf=0.01) for i in range(40)]
        maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
    found = ladders(summarise(maker.write()), "classification")
    assert [x.title for x in found][:2] == ["fgsm (L∞)", "fgsm (L∞, swap arguments)"]
