"""CLIPSeg from a folder: equal to transformers, with gradients, adapters and its own tokenizer."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from palpate import registry
from palpate.attacks.pgd import Pgd
from palpate.errors import CheckpointError, TargetError
from palpate.models.adapters import adapter_tensors
from palpate.outcome import Status
from palpate.types import Batch, Bounds, PromptedSegmentation, Segmentation

transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
NETWORK = ROOT / "recipes/vlsm_robustness/small/network"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole model in a folder, as `from_pretrained` wants it: smaller still than ours."""
    made = tmp_path_factory.mktemp("clipseg")
    config = json.loads((NETWORK / "config.json").read_text())
    config["vision_config"] |= {"image_size": 32, "hidden_size": 16, "intermediate_size": 32}
    config["text_config"] |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6}
    config |= {"projection_dim": 12, "reduce_dim": 8, "decoder_intermediate_size": 16}
    (made / "config.json").write_text(json.dumps(config))
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (made / name).write_bytes((NETWORK / name).read_bytes())
    torch.manual_seed(0)
    net = transformers.CLIPSegForImageSegmentation(transformers.CLIPSegConfig.from_pretrained(made))
    for parameter in net.parameters():  # the library's own start answers nearly nothing
        parameter.data = torch.randn_like(parameter) * 0.2
    net.save_pretrained(made)
    return made


def make(folder, **parameters):
    return registry.create("targets", "clipseg", {"path": str(folder), **parameters})


def load(folder, **parameters):
    return make(folder, **parameters).load(task=PromptedSegmentation(), channels=3, bounds=Bounds())


def asked(*prompts, side=32):
    images = torch.rand(len(prompts), 3, side, side, generator=torch.Generator().manual_seed(2))
    names = tuple(map(str, range(len(prompts))))
    references = (images[:, :1] > 0.5).long()
    return Batch(images, references, names, names, names, prompts=prompts)


def test_answers_what_transformers_answers_bit_for_bit(folder):
    target, batch = load(folder), asked("polyp", "a skin lesion in a dermoscopy image")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    words = tokenizer(list(batch.prompts), padding="max_length", max_length=48, return_tensors="pt")
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (target.mean, target.std))
    with torch.no_grad():
        expected = target.module.net(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            pixel_values=(batch.images - mean) / std,
        ).logits

    assert torch.allclose(target.predict(batch).logits[:, 0], expected, atol=1e-5)
    assert expected.std() > 1e-3


def test_transformers_own_forward_has_no_gradient_and_ours_has(folder):
    target, batch = load(folder), asked("polyp")
    points = batch.images.clone().requires_grad_()
    own = target.module.net(input_ids=target.tokens(batch.prompts), pixel_values=points).logits
    assert not torch.autograd.grad(own.sum(), points, allow_unused=True)[0]

    logits = target.logits(points, target.tokens(batch.prompts))
    (gradient,) = torch.autograd.grad(logits.sum(), points)
    assert (gradient != 0).float().mean() > 0.9


def test_an_attack_runs_under_the_question_and_hurts(folder):
    target, batch = load(folder), asked("polyp", "skin lesion")
    found = Pgd(epsilon=0.1, steps=5).search(
        target, batch.images, batch.references, prompts=batch.prompts
    )
    assert found.status == (Status.OK, Status.OK)


def test_a_prompt_does_not_hang_on_its_neighbours(folder):
    target = load(folder)
    alone = target.predict(asked("polyp")).logits
    long = asked("polyp", "one medium yellow oval polyp in the middle left of the image")

    assert torch.allclose(target.predict(long).logits[:1], alone, atol=1e-6)


def test_the_question_matters_and_so_does_its_end(folder):
    target = load(folder)
    a, b = (target.predict(asked(text)).logits for text in ("polyp", "skin lesion"))

    assert not torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "shallow", "lora"])
def test_adapters_alone_are_kept_and_come_back(folder, tmp_path, kind):
    if kind == "lora":
        pytest.importorskip("peft")
    source = make(folder, adapter=kind, width=4)
    module = source.build(classes=1, channels=3)
    trained = [p for p in module.parameters() if p.requires_grad]
    frozen = [p for p in module.parameters() if not p.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < sum(p.numel() for p in frozen)
    batch = asked("polyp", "skin lesion")
    tokens = source.tokenizer()(batch.prompts)
    module(batch.images, tokens).sum().backward()
    assert all(p.grad is not None for p in trained)
    assert all(p.grad is None for p in frozen)

    with torch.no_grad():
        for parameter in trained:
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    kept = source.kept_state(module.state_dict())
    assert set(kept) == set(adapter_tensors(module.state_dict()))
    save_file(dict(kept), tmp_path / "adapters.safetensors")
    target = load(folder, adapter=kind, width=4, weights=str(tmp_path / "adapters.safetensors"))
    with torch.no_grad():
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (target.mean, target.std))
        expected = module.eval()((batch.images - mean) / std, tokens)
    assert torch.equal(target.predict(batch).logits, expected)
    bare = load(folder).predict(batch).logits
    assert not torch.allclose(bare, expected, atol=1e-3)


def test_adapters_of_another_kind_do_not_fit(folder, tmp_path):
    source = make(folder, adapter="dense", width=4)
    state = source.kept_state(source.build(classes=1, channels=3).state_dict())
    save_file(dict(state), tmp_path / "dense.safetensors")
    with pytest.raises(CheckpointError, match=r"dense.safetensors does not fit the model"):
        load(folder, adapter="dense", width=5, weights=str(tmp_path / "dense.safetensors"))


def test_the_whole_network_can_come_from_a_checkpoint(folder, tmp_path):
    state = {f"net.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    save_file(state, tmp_path / "whole.safetensors")
    (tmp_path / "bare").mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / "bare" / path.name).write_bytes(path.read_bytes())
    batch = asked("polyp")
    found = load(tmp_path / "bare", weights=str(tmp_path / "whole.safetensors"))
    expected = load(folder).predict(batch).logits

    assert torch.allclose(found.predict(batch).logits, expected, atol=1e-6)
    fresh = load(tmp_path / "bare").predict(batch).logits
    assert not torch.allclose(fresh, expected, atol=1e-3)


def test_a_prompt_that_is_too_long_is_refused_or_cut(folder):
    long = "polyp " * 60
    with pytest.raises(TargetError, match=r"at most 48 tokens, got 62: 'polyp"):
        load(folder).predict(asked(long))
    cut = load(folder, too_long="truncate")
    tokens = cut.tokens((long, "polyp"))

    assert tokens.shape == (2, 48)
    assert tokens[0, -1] == cut.tokenizer.end
    assert torch.isfinite(cut.predict(asked(long)).logits).all()


def test_any_bytes_are_text(folder):
    target = load(folder)
    texts = (
        "naïve Größe",
        "肿瘤",
        "<script>",
        "",
        "\x00\udcff".encode("utf-8", "replace").decode(),
    )

    assert torch.isfinite(target.predict(asked(*texts)).logits).all()


def test_ids_turn_back_into_their_text(folder):
    tokenizer = make(folder).tokenizer()
    for text in ("skin lesion", "one small dark round polyp in the top left of the image"):
        assert tokenizer.text(tokenizer([text])[0].tolist()) == text
    assert tokenizer.end in tokenizer.special


def test_another_length_is_another_target(folder):
    digests = {load(folder, length=length).digest() for length in (None, 48, 20)}

    assert len(digests) == 2


def test_missing_prompts_are_named(folder):
    batch = asked("polyp")
    images = Batch(batch.images, batch.references, batch.samples, batch.cases, batch.sites)
    with pytest.raises(TargetError, match="expected samples with prompts for a prompted task"):
        load(folder).predict(images)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"adapter": "lora", "places": "VLC"}, "places V or VL for lora"),
        ({"length": 100}, "length of 3 to 48 tokens, got 100"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, parameters, message):
    if parameters.get("adapter") == "lora":
        pytest.importorskip("peft")
    with pytest.raises(TargetError, match=message):
        load(folder, **parameters)


def test_other_tasks_and_grey_images_are_refused(folder):
    with pytest.raises(TargetError, match="expected a task of PromptedSegmentation"):
        make(folder).load(task=Segmentation(("a", "b")), channels=3, bounds=Bounds())
    with pytest.raises(TargetError, match="expected RGB images"):
        make(folder).load(task=PromptedSegmentation(), channels=1, bounds=Bounds())


def test_a_folder_without_its_files_names_what_it_lacks(tmp_path):
    with pytest.raises(TargetError, match=r"got .* has no config.json, vocab.json, merges.txt"):
        load(tmp_path)
    with pytest.raises(TargetError, match=r"path: a folder with config.json, model.safetensors"):
        load(tmp_path / "nowhere")


def test_fresh_layers_of_a_deviation_of_one_drown_the_question():
    batch = asked("polyp", "skin lesion", side=96)
    same = batch.with_images(batch.images[:1].expand(2, -1, -1, -1))

    def share(deviation):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            target = load(NETWORK, initializer_range=deviation)
        made = target.module.net.decoder.film_mul.weight.std().item()
        assert made == pytest.approx(deviation or 1.0, rel=0.05)
        logits = target.predict(same).logits
        return ((logits[0] - logits[1]).std() / logits.std()).item()

    assert share(None) < 0.01 < 0.05 < share(0.08)
