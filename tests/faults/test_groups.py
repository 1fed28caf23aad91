from collections import Counter

import pytest
from torch import nn

from palpate.faults._groups import groups
from palpate.faults._sites import places
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.models.adapters import adapt, adapter_tensors
from palpate.models.clipseg import PromptedClipSeg
from palpate.targets.base import Target
from palpate.types import PromptedSegmentation


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


@pytest.fixture
def prompted():
    transformers = pytest.importorskip("transformers")
    sides = {"num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.CLIPSegConfig(
        text_config={**sides, "hidden_size": 16, "vocab_size": 12, "max_position_embeddings": 8},
        vision_config={**sides, "hidden_size": 16, "image_size": 40, "patch_size": 8},
        projection_dim=16,
        extract_layers=[1, 2, 3],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    return PromptedClipSeg(transformers.CLIPSegForImageSegmentation(config))


@pytest.mark.parametrize(
    ("kind", "where"), [("none", "VL"), ("dense", "VLC"), ("shallow", "VLC"), ("lora", "VL")]
)
def test_a_clipseg_falls_into_encoders_adapters_and_decoder(prompted, kind, where):
    if kind == "lora":
        pytest.importorskip("peft")
    adapt(prompted, kind, places=where, width=4)
    found = {p.name: p.group for p in places(prompted)}
    sides = {"image encoder", "text encoder", "decoder"}
    assert set(found.values()) == (sides if kind == "none" else sides | {"adapters"})
    ours = {name for name, group in found.items() if group == "adapters"}
    assert ours == set(adapter_tensors(found))
    for start, group in (("vision_model", "image encoder"), ("text_model", "text encoder")):
        of = {g for name, g in found.items() if f".{start}." in name and name not in ours}
        assert of == {group}
    assert {g for name, g in found.items() if name.startswith("net.decoder.")} == {"decoder"}


def test_faults_are_dealt_to_each_part_of_a_clipseg(prompted):
    adapt(prompted, "dense", width=4)
    target = Target(prompted.eval(), PromptedSegmentation())
    fault = WeightBitFlip(scope="group")
    dealt = fault._strata(fault._places(target))
    assert {s.name for s in dealt} == {"image encoder", "text encoder", "adapters", "decoder"}
    assert sum(s.share for s in dealt) == pytest.approx(1)


def test_one_encoder_alone_keeps_the_usual_groups():
    net = nn.Module()
    net.vision_model = nn.Module()
    net.vision_model.mlp = nn.Linear(2, 2)
    assert {p.group for p in places(net)} == {"MLP"}


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
