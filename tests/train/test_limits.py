"""What ends a training before its first step: memory that the machine does not have. What it leaves: nothing."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

from cloudseg.errors import SettingsError
from cloudseg.recipe import load_recipe
from cloudseg.train.compiler_cache import private_compiler_cache
from cloudseg.train.run import _memory_explained


def test_too_little_memory_names_what_to_lower() -> None:
    with (
        pytest.raises(SettingsError, match=r"recipe smoke: .* more memory .*batch_size"),
        _memory_explained(load_recipe("smoke")),
    ):
        torch.empty(10**15)


def test_other_errors_of_torch_are_not_about_memory() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), _memory_explained(load_recipe("smoke")):
        torch.ones(2) + torch.ones(3)


def test_the_compilers_cache_is_private_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with private_compiler_cache():
        folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/srv/cache")
    with private_compiler_cache():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/srv/cache"
