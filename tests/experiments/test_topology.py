"""How a topology moves, in numbers that can be counted by hand, and from a run's kept masks."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from experiments.analysis import topology
from experiments.analysis.topology import Epoch, Topology
from experiments.folder import RunFolder
from grda_optax import nonzero_mask

from .conftest import SHORT, change

RECIPE = change(SHORT, method=("recipe",), epochs=4)


def masks(*rows):
    """Two leaves of two weights each, from strings such as "10 11"."""
    return [
        {
            name: np.array([x == "1" for x in part])
            for name, part in zip("ab", row.split(), strict=True)
        }
        for row in rows
    ]


def test_numbers_by_hand():
    found = topology.measure(masks("11 10", "01 10", "11 00", "10 00", "10 00"))
    assert found == Topology(
        epochs=[
            Epoch(
                1, 3, gone=1, returned=0, overlap_previous=3 / 4, overlap_final=pytest.approx(1 / 3)
            ),
            Epoch(2, 2, gone=1, returned=0, overlap_previous=pytest.approx(2 / 3), overlap_final=0),
            Epoch(
                3, 2, gone=1, returned=1, overlap_previous=pytest.approx(1 / 3), overlap_final=1 / 2
            ),
            Epoch(4, 1, gone=1, returned=0, overlap_previous=1 / 2, overlap_final=1),
            Epoch(5, 1, gone=0, returned=0, overlap_previous=1, overlap_final=1),
        ],
        total=4,
        ever_returned=1,
        settled_epoch=4,
    )


def test_what_returns_twice_counts_once_and_a_dip_unsettles():
    found = topology.measure(masks("11 11", "10 11", "11 11", "10 11", "11 11"))
    assert [x.returned for x in found.epochs] == [0, 0, 1, 0, 1]
    assert found.ever_returned == 1
    assert found.settled_epoch == 5


def test_one_epoch_is_settled():
    assert topology.measure(masks("00 00")).settled_epoch == 1


def test_masks_come_back_as_they_were_written(tmp_path):
    """With sizes that do not fill a byte, and without the leaves that are not penalised."""
    rng = np.random.default_rng(0)
    params = {
        "x": {"kernel": rng.integers(-1, 2, (3, 7)).astype(np.float32), "bias": np.zeros(3)},
        "y": {"kernel": rng.integers(-1, 2, (2, 2, 2)).astype(np.float32)},
    }
    folder = RunFolder(tmp_path)
    for epoch in (10, 2):
        folder.write_masks(epoch, params, jax.tree.map(lambda x: x.ndim > 1, params))
    (folder.masks / "epoch_000003.partial").write_text("cut off")
    kept = folder.read_masks()
    assert list(kept) == [2, 10]
    assert set(kept[2]) == {"x/kernel", "y/kernel"}
    for name in "xy":
        found, wanted = kept[10][f"{name}/kernel"], params[name]["kernel"] != 0
        assert found.dtype == bool
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_from_end_to_end_with_a_stop_between(train, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    train(tmp_path / "run", RECIPE, keep_masks=True, stop_after=15)  # within the second epoch
    trained = train(tmp_path / "run", RECIPE, keep_masks=True)
    assert topology.main([str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "topology.json").read_text())["result"]
    assert [x["epoch"] for x in found["epochs"]] == [1, 2, 3, 4]
    assert found["total"] == trained.result["penalised"]["total"]
    assert found["epochs"][-1]["nonzero"] == trained.result["penalised"]["nnz"]
    assert f"{found['epochs'][-1]['nonzero']:,}" in out
    assert found["epochs"][-1]["overlap_final"] == 1
    # The zeros are frozen after three quarters, at the end of the third epoch.
    assert found["settled_epoch"] <= 3
    assert found["epochs"][-1]["gone"] == found["epochs"][-1]["returned"] == 0
    last = RunFolder(tmp_path / "run").read_masks()[4]
    np.testing.assert_array_equal(
        last["head/kernel"], nonzero_mask(trained.params)["head"]["kernel"]
    )
    picture = np.asarray(Image.open(tmp_path / "run" / "topology.png").convert("L"))
    assert picture.std() > 10  # something is drawn

    RunFolder(tmp_path / "run").open(RECIPE, overwrite=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_masks_that_are_not_all_there_are_named(tmp_path, capsys):
    console = Console(file=io.StringIO())
    with pytest.raises(
        ValueError, match=r"^run must be the folder of a run with --keep-masks, got"
    ):
        topology.analyse(topology.Arguments(tmp_path), console)
    folder = RunFolder(tmp_path)
    folder.write_masks(2, {"w": np.ones(3)}, {"w": True})
    with pytest.raises(ValueError, match=r"^run must be a run with --keep-masks from the first"):
        topology.analyse(topology.Arguments(tmp_path), console)
    assert topology.main([str(tmp_path)]) == 2
    assert "from the first step to the last" in " ".join(capsys.readouterr().err.split())
    assert not folder.analysis("topology").with_suffix(".json").exists()
