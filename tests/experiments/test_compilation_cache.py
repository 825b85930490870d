"""Compiled programs are kept for the next run, and change nothing but its time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments import compilation_cache, run

from .conftest import exactly

OPTIONS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def none_yet():
    """JAX without a folder, as a process starts; afterwards it is that of the tests again."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_default_is_in_the_users_cache_folder(monkeypatch, none_yet, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation_cache.use(compilation_cache.default_folder())
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "grda_optax" / "xla")
    assert (tmp_path / "grda_optax" / "xla").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(compilation_cache.default_folder().expanduser()).startswith("/somewhere/.cache/")


def test_none_keeps_nothing(none_yet):
    compilation_cache.use(None)
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_jax_has_been_given_stays(none_yet, tmp_path):
    jax.config.update("jax_compilation_cache_dir", "given")
    compilation_cache.use(tmp_path / "new")
    assert jax.config.jax_compilation_cache_dir == "given"
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written(none_yet, tmp_path, monkeypatch, capsys):
    """It is named where it was asked for; the default one is no reason not to run."""
    file = tmp_path / "file"
    file.touch()
    wanted = f"compilation_cache must be a folder that can be written, or None, got '{file}'."
    with pytest.raises(ValueError, match=exactly(wanted)):
        compilation_cache.use(file)
    words = ["digits", "--runs-dir", str(tmp_path / "runs"), "--compilation-cache", str(file)]
    assert run.main(words) == 2
    assert " ".join(capsys.readouterr().err.split()) == f"error: {wanted}"
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    compilation_cache.use(compilation_cache.default_folder())
    assert jax.config.jax_compilation_cache_dir is None


PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from experiments import compilation_cache
compilation_cache.use(Path(sys.argv[1]))
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))[0, 0])
"""


def environment():
    names = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    return {k: v for k, v in os.environ.items() if k not in names}


@pytest.mark.slow
def test_programs_that_were_cut_off_are_compiled_again(tmp_path):
    """As by a process that was killed while it wrote them."""

    def ask():
        words = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
        return done.stdout

    first = ask()
    kept = [path for path in tmp_path.iterdir() if path.name.endswith("-cache")]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert ask() == first


@pytest.mark.slow
def test_a_run_from_kept_programs_has_the_same_bits(tmp_path, data_dir, digits):
    def rows(name):
        words = ["digits", "--method", "grda", "--steps", "30", "--no-progress", "--name", name]
        words += ["--data-dir", str(data_dir), "--runs-dir", str(tmp_path)]
        words += ["--compilation-cache", str(tmp_path / "cache")]
        command = [sys.executable, "-m", "experiments.run", *words]
        subprocess.run(command, env=environment(), capture_output=True, check=True)
        lines = Path(tmp_path / name / "grda" / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]

    first = rows("compiled")
    names = {path.name for path in (tmp_path / "cache").iterdir() if "-cache" in path.name}
    assert any("training_step" in name for name in names)
    assert rows("kept") == first
    after = {path.name for path in (tmp_path / "cache").iterdir() if "-cache" in path.name}
    assert after == names
