"""gRDA by the paper on Fashion-MNIST: what do c and mu buy, and at what accuracy?"""

import dataclasses
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from experiments.config import Config
from experiments.configs import fashion_mnist, fashion_mnist_cnn
from experiments.log import Row
from experiments.methods.grda import Settings
from experiments.plotting import plt
from experiments.studies import tables

title = "gRDA by the paper, Fashion-MNIST"

SEEDS = (0, 1, 2)
NETWORKS = {"fashion_mnist": fashion_mnist.CONFIG, "fashion_mnist_cnn": fashion_mnist_cnn.CONFIG}
MU = (0.501, 0.55, 0.6, 0.7)


def runs() -> list[tuple[Config, str]]:
    """Dense SGD and four values of mu, on two networks, from three seeds each."""
    configs = []
    for preset, base in NETWORKS.items():
        for seed in SEEDS:
            base = dataclasses.replace(base, seed=seed)
            configs.append((dataclasses.replace(base, method=("dense",)), preset))
            for mu in MU:
                settings = Settings(c=0.005, mu=mu)
                configs.append((dataclasses.replace(base, method=("grda",), grda=settings), preset))
    return configs


def summary(rows: list[Row]) -> str:
    """What the README says."""
    del rows  # the figure is drawn from them
    return (
        "The paper's optimizer, plain SGD at a constant rate with a threshold: how many weights it "
        "leaves out at c = 0.005 for four values of mu, and at what accuracy.\n\n"
        "![Accuracy against sparsity of gRDA](experiments/results/fashion_mnist_paper.png)"
    )


def render(rows: list[Row], folder: Path) -> str:
    """A table for each network, and one figure."""
    parts = [
        "Plain SGD at a constant rate of 0.1 with batches of 128; every leaf is thresholded, as in "
        "the paper, and the zeros are counted over all weights. c = 0.005. Mean ± standard "
        "deviation over seeds; the accuracy is that of the last epoch.",
        "![Accuracy against sparsity](fashion_mnist_paper.png)",
    ]
    fig, panels = plt.subplots(1, len(NETWORKS), figsize=(11, 4), layout="constrained")
    for axes, base in zip(panels, NETWORKS.values(), strict=True):
        mine = [row for row in rows if row["config"]["model"] == base.model]
        groups = tables.group(mine, _setting)
        lines = []
        points = {}
        for setting in sorted(groups, key=str):
            group = groups[setting]
            zeros = tables.spread(tables.sparsity(row, "all") for row in group)
            score = tables.spread(map(tables.accuracy, group))
            points[setting] = zeros, score
            name = "dense SGD" if setting is None else f"gRDA, mu = {setting}"
            nonzero = round(tables.spread(row["result"]["all"]["nnz"] for row in group).mean)
            lines.append(
                [
                    name,
                    tables.plus_minus(zeros) if setting else f"{zeros.mean:.2f}",
                    f"{nonzero:,} of {group[0]['result']['all']['total']:,}",
                    tables.plus_minus(score),
                    f"{len(group)}",
                ]
            )
        lines.sort(key=lambda line: line[0])
        header = ["", "zeros (%)", "nonzero", "test accuracy (%)", "seeds"]
        parts += [f"**{base.model}**, {base.epochs} epochs", tables.markdown(header, lines)]
        _draw(axes, points, base.model)
    fig.savefig(folder / "fashion_mnist_paper.png", dpi=130)
    plt.close(fig)
    return "\n\n".join(parts)


def _setting(row: Row) -> float | None:
    return row["config"]["grda"]["mu"] if row["config"]["method"] == ["grda"] else None


def _draw(axes: Axes, points: dict[Any, tuple[tables.Spread, tables.Spread]], title: str) -> None:
    """Accuracy against sparsity, with the dense accuracy as a band."""
    if None in points:
        dense = points[None][1]
        axes.axhline(dense.mean, color="#4c6a92", label="dense SGD")
        axes.axhspan(dense.mean - dense.std, dense.mean + dense.std, color="#4c6a92", alpha=0.15)
    sparse = sorted((k, v) for k, v in points.items() if k is not None)
    axes.errorbar(
        [zeros.mean for _, (zeros, _) in sparse],
        [score.mean for _, (_, score) in sparse],
        xerr=[zeros.std for _, (zeros, _) in sparse],
        yerr=[score.std for _, (_, score) in sparse],
        color="#d1603d",
        marker="o",
        capsize=3,
        label="gRDA, c = 0.005",
    )
    for mu, (zeros, score) in sparse:
        axes.annotate(
            f"mu {mu}",
            (zeros.mean, score.mean),
            textcoords="offset points",
            xytext=(0, -16),
            ha="center",
            fontsize=8,
        )
    axes.margins(x=0.12, y=0.25)
    axes.set(title=title, xlabel="zeros (% of all weights)", ylabel="test accuracy (%)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
