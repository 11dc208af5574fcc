import pytest
import torch

from skocc._engine.device import resolve_device


def test_none_takes_the_fastest(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device(None).type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device(None).type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device(None).type == "cpu"


def test_names_and_indices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device(torch.device("cpu")).type == "cpu"
    with pytest.raises(ValueError, match=r"cuda:2.*sees 2 CUDA device\(s\).*device=None"):
        resolve_device("cuda:2")
    with pytest.raises(ValueError, match="'gpu' is not the name of a device"):
        resolve_device("gpu")
    for number in (2**63, 2**70):
        with pytest.raises(ValueError, match="is not"):
            resolve_device(number)


def test_fall_back_warns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.warns(UserWarning, match=r"'cuda' is not available.*scoring on the CPU"):
        assert resolve_device("cuda", fall_back=True).type == "cpu"


def test_cuda_is_not_taken_in_a_forked_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("skocc._engine.device.is_forked", lambda: True)
    with pytest.warns(UserWarning, match="forked from one that had used CUDA"):
        assert resolve_device(None).type == "cpu"
    with pytest.raises(ValueError, match=r"'cuda' cannot be used .* forked .*'spawn'"):
        resolve_device("cuda")
    with pytest.warns(UserWarning, match="scoring on the CPU instead"):
        assert resolve_device("cuda", fall_back=True).type == "cpu"
