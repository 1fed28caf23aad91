from palpate.report.appendix import glossary, not_tested, provenance


def test_families_outside_the_audit_are_named(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    maker.not_testable = [
        {
            "target": "onnx",
            "perturbation": "pgd",
            "setting": {"epsilon": 0.1},
            "reason": "no gradients",
        }
    ]
    rows = dict(not_tested(maker.write()))
    assert rows["Faults"] == "not part of this audit"
    assert rows["pgd on onnx (epsilon 0.1)"] == "no gradients"


def test_sites_that_the_report_shows_are_not_called_untested(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    record = maker.write()
    assert "drift between sites, devices and years" in dict(not_tested(record))
    assert "drift to other sites, devices and years" in dict(not_tested(record, by_site=True))


def test_a_metric_of_another_task_is_named(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    asked = ["accuracy", "dice", {"name": "dice_below", "bar": 0.5}]
    record = maker.write(config={"metrics": asked})

    found = dict(not_tested(record))

    assert found["Dice"] == "no measure of classification"
    assert "accuracy" not in found
    assert sum(why == "no measure of classification" for why in found.values()) == 2


def test_storage_is_stated(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    maker.storage = "uint8"
    assert "rounded to the 8-bit grid" in dict(provenance(maker.write()))["storage"]
    maker.storage = "jpeg:90:changed"
    said = dict(provenance(maker.write()))["storage"]
    assert "JPEG files of quality 90, clean images as loaded" in said
    assert "may exceed an attack's budget" in said


def test_every_metric_has_a_definition():
    words = dict(glossary())
    assert "RIGHT WHEN CLEAN" in words["attack success rate"]
    assert list(words) == sorted(words, key=str.lower)
