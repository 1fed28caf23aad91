import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from palpate.errors import CheckpointError
from palpate.targets._checkpoint import fit_state, load_state


@pytest.fixture
def state():
    return nn.Linear(3, 2).state_dict()


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_state_dicts_load_bare_or_wrapped(tmp_path, state, wrapper):
    torch.save({wrapper: state} if wrapper else state, tmp_path / "w.pt")

    loaded = load_state(tmp_path / "w.pt")

    assert torch.equal(loaded["weight"], state["weight"])


def test_safetensors_load(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")

    assert torch.equal(load_state(tmp_path / "w.safetensors")["bias"], state["bias"])


def test_a_pickled_model_is_refused_unless_allowed(tmp_path):
    torch.save(nn.Linear(3, 2), tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="got a pickled object.*allow_pickle: true"):
        load_state(tmp_path / "w.pt")
    assert load_state(tmp_path / "w.pt", allow_pickle=True).keys() == {"weight", "bias"}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_damaged_and_missing_files_are_named(tmp_path, state, name):
    with pytest.raises(CheckpointError, match="got no such file"):
        load_state(tmp_path / name)
    for nonsense in (b"\x80\x02nonsense", b"hello", b"", b"<html>not found</html>"):
        (tmp_path / name).write_bytes(nonsense)
        with pytest.raises(CheckpointError, match=name):
            load_state(tmp_path / name)


def test_truncated_checkpoint_is_named(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:-5])

    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_state(tmp_path / "w.safetensors")


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path, state):
    module = nn.Linear(3, 4)
    before = module.weight.clone()

    with pytest.raises(
        CheckpointError, match=r"2 of another shape, such as bias: expected \(4,\), got \(2,"
    ):
        fit_state(module, state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"1 missing, such as bias; 1 unknown, such as extra"):
        fit_state(module, {"weight": torch.zeros(4, 3), "extra": torch.zeros(1)}, tmp_path / "w.pt")
    assert torch.equal(module.weight, before)
