"""What a person sees at the end of a run: a table side by side, the layers, and a figure."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.collapse import collapsed
from experiments.config import Config
from experiments.plotting import COLORS, plt
from experiments.train import Trained


def show(trained: dict[str, Trained], config: Config, console: Console) -> None:
    """Prints the results of some methods side by side, then the sparsity layer by layer."""
    results = {name: x.result or {} for name, x in trained.items()}
    table = Table(title=f"{config.dataset}, {config.model}, {config.epochs} epochs")
    table.add_column()
    for name in results:
        table.add_column(name, justify="right")
    rows = {
        f"{config.evaluate} accuracy": lambda r: f"{r['eval_accuracy']:.2%}",
        "sparsity of penalised weights": lambda r: _percent(r["penalised"]),
        "sparsity of all weights": lambda r: _percent(r["all"]),
        "nonzero, penalised": lambda r: f"{r['penalised']['nnz']:,}",
        "total, penalised": lambda r: f"{r['penalised']['total']:,}",
        "nonzero, all": lambda r: f"{r['all']['nnz']:,}",
        "total, all": lambda r: f"{r['all']['total']:,}",
        "seconds": lambda r: f"{r['seconds']:.1f}",
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(r) for r in results.values()))
    console.print(table)

    layers = Table(title="sparsity, layer by layer (* not penalised)")
    layers.add_column("layer")
    layers.add_column("weights", justify="right")
    for name in results:
        layers.add_column(name, justify="right")
    for leaf, count in next(iter(results.values()))["leaves"].items():
        star = "" if count["penalised"] else " *"
        cells = (_percent(r["leaves"][leaf]) for r in results.values())
        layers.add_row(leaf + star, f"{count['total']:,}", *cells)
    console.print(layers)
    for name, result in results.items():
        for layer in collapsed(result["leaves"]):
            console.print(f"[yellow]layer collapse: {name} has no weight left in {layer}.[/yellow]")


def _percent(count: dict[str, int]) -> str:
    return f"{1 - count['nnz'] / count['total']:.2%}" if count["total"] else "-"


def figure(trained: dict[str, Trained], config: Config, path: Path) -> None:
    """Draws accuracy and sparsity along training, and the sparsity of every layer."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    ends = []
    for color, (name, x) in zip(COLORS, trained.items(), strict=False):
        scored = [row for row in x.rows if "eval_accuracy" in row]
        steps = [row["step"] for row in scored]
        left.plot(steps, [100 * row["eval_accuracy"] for row in scored], color=color, label=name)
        zeros = [100 * row["sparsity_penalised"] for row in scored]
        middle.plot(steps, zeros, color=color, label=name)
        ends.append((zeros[-1], steps[-1], color))
    below = 100.0
    for zeros_at_end, step, color in sorted(ends, reverse=True):
        # Beneath its line and the label before; above it where there is no room.
        below = min(zeros_at_end - 2, below - 8)
        place = below if below > 8 else zeros_at_end + 8
        text = f"{zeros_at_end:.1f} %"
        middle.text(step, place, text, ha="right", va="top", color=color)
    best = max(
        row["eval_accuracy"] for x in trained.values() for row in x.rows if "eval_accuracy" in row
    )
    # The climb from chance would hide what is worth seeing.
    left.set_ylim(max(0, 100 * best - 12), min(100, 100 * best + 1.5))
    left.set(xlabel="step", ylabel=f"{config.evaluate} accuracy (%)")
    middle.set(xlabel="step", ylabel="zeros among penalised weights (%)", ylim=(-3, 103))
    left.legend(frameon=False)

    names = [
        leaf
        for leaf, count in next(iter(trained.values())).result["leaves"].items()  # type: ignore[index]
        if count["penalised"]
    ]
    height = 0.8 / len(trained)
    for i, (color, (name, x)) in enumerate(zip(COLORS, trained.items(), strict=False)):
        leaves = x.result["leaves"]  # type: ignore[index]
        values = [100 * (1 - leaves[leaf]["nnz"] / leaves[leaf]["total"]) for leaf in names]
        places = [row + (i - (len(trained) - 1) / 2) * height for row in range(len(names))]
        right.barh(places, values, height, color=color, label=name)
        for place, value in zip(places, values, strict=True):
            if value:
                right.text(value, place, f" {value:.0f}", va="center", fontsize=8, color=color)
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.invert_yaxis()
    right.set(xlabel="zeros in the layer (%)", xlim=(0, 112))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"{config.dataset}, {config.model}")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=130)
    plt.close(fig)
