from collections import Counter

import pytest
from torch import nn

from palpate.faults._groups import groups
from palpate.faults._sites import places
from palpate.faults.weight_bit_flip import WeightBitFlip


def test_medmamba_has_the_groups_of_the_literature(nets):
    net, _ = nets("medmamba")
    found = {p.group for p in places(net)}
    parts = {"in_proj", "conv2d", "x_proj", "dt", "A", "D", "out_proj", "norms", "downsample"}
    branches = {f"stage {i} conv branch" for i in (1, 2, 3)}
    assert found == parts | branches | {"stem", "head"}
    block = "layers.0.blocks.0"
    roles = groups(net)
    assert roles[f"{block}.self_attention.A_logs"] == "A"
    assert roles[f"{block}.self_attention.dt_projs_bias"] == "dt"
    assert roles[f"{block}.self_attention.out_norm.weight"] == "norms"
    assert roles[f"{block}.conv33conv33conv11.0.running_var"] == "stage 1 conv branch"
    assert roles["patch_embed.norm.weight"] == "stem"


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("resnet18", {"stem", "layer1.0", "layer4.1", "norms", "downsample", "head"}),
        ("vit", {"stem", "attention", "MLP", "norms", "head"}),
    ],
)
def test_other_networks_get_groups_by_role(nets, net, expected):
    found = Counter(p.group for p in places(nets(net)[0]))
    assert expected <= set(found)


def test_what_says_nothing_is_named_by_its_place():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    assert {p.name: p.group for p in places(net)} == {
        "0.0.weight": "0.0",
        "0.0.bias": "0.0",
        "1.weight": "1",
        "1.bias": "1",
    }


@pytest.mark.parametrize("scope", ["group", "group_field", "layer_field"])
def test_scopes_by_group_cover_the_memory_once(wrap, nets, scope):
    target, _ = wrap(*nets("medmamba"))
    fault = WeightBitFlip(scope=scope)
    dealt = fault._strata(fault._places(target))
    assert sum(s.share for s in dealt) == pytest.approx(1)
    whole = WeightBitFlip(scope="model")
    assert sum(s.size for s in dealt) == whole._strata(whole._places(target))[0].size
    if scope.endswith("_field"):
        assert any(s.name == "x_proj top exponent bit" for s in dealt) == (scope[0] == "g")
