"""The figures that explain, drawn by the library itself: ``python docs/figures.py``.

Those of results are drawn by the studies that have made the results.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.plotting import COLORS, plt
from grda_optax import dual_averaging, grda, power_threshold, soft_threshold, valley_prune

FOLDER = Path(__file__).parent / "pages" / "figures"
DUAL, PROXIMAL, THIRD = COLORS[1], COLORS[0], COLORS[2]


def two_weights(path: Path) -> None:
    """Dual averaging beside proximal SGD, on a weight that is needed and on one that is not.

    Both take the same noisy gradients, and both shrink by the same amounts: proximal SGD shrinks
    the weight itself by what the threshold has grown in this step.
    """
    steps, gamma, c, mu = 400, 0.05, 0.6, 0.6
    start = jnp.array([0.3, 0.5])
    noise = jax.random.normal(jax.random.key(0), (steps, 2))
    h = jnp.asarray(c * gamma**0.5 * (gamma * np.arange(steps + 1)) ** mu)
    tx = dual_averaging(power_threshold(gamma, c, mu))

    def gradient(w: jax.Array, xi: jax.Array) -> jax.Array:
        return jnp.array([1.0, 0.0]) * (w - 1.0) + 0.15 * xi

    def step(carry: tuple, now: tuple) -> tuple:
        (w, state), proximal = carry
        xi, before, after = now
        updates, state = tx.update(-gamma * gradient(w, xi), state, w)
        w = optax.apply_updates(w, updates)
        proximal = soft_threshold(proximal - gamma * gradient(proximal, xi), after - before)
        return ((w, state), proximal), (w, state.accumulator, proximal)

    _, (w, v, proximal) = jax.lax.scan(
        step, ((start, tx.init(start)), start), (noise, h[:-1], h[1:])
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    titles = ("A weight that the loss needs", "A weight that the loss does not need")
    n = np.arange(1, steps + 1)
    for j, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        ax.fill_between(n, -h[1:], h[1:], color="0.9", label="up to the threshold $\\pm h_n$")
        ax.plot(n, v[:, j], color=DUAL, lw=0.9, ls=":", label="accumulator $v_n$")
        ax.plot(n, w[:, j], color=DUAL, lw=2, label="weight, dual averaging")
        ax.plot(n, proximal[:, j], color=PROXIMAL, lw=1, ls="--", label="weight, proximal SGD")
        ax.set(title=title, xlabel="update")
    axes[0].legend(fontsize=8, loc="lower right")
    late = slice(steps // 2, None)
    shares = [100 * float(np.mean(np.asarray(x[late, 1]) == 0)) for x in (w, proximal)]
    axes[1].text(
        0.97, 0.06, "exactly zero in the second half:\n"
        f"dual averaging {shares[0]:.0f} %, proximal SGD {shares[1]:.0f} % of the time",
        transform=axes[1].transAxes, ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    _save(figure, path)


def valley(path: Path) -> None:
    """Two weights of which the loss sees one combination: SGD stops, gRDA slides to an axis."""
    direction = jnp.array([1.0, 0.6])
    start = jnp.array([0.25, 0.95])

    def loss(w: jax.Array) -> jax.Array:
        return (direction @ w - 1.0) ** 2

    def way(tx: optax.GradientTransformation, steps: int) -> np.ndarray:
        def step(carry: tuple, _: None) -> tuple:
            w, state = carry
            updates, state = tx.update(jax.grad(loss)(w), state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), w

        _, points = jax.lax.scan(step, (start, tx.init(start)), length=steps)
        return np.concatenate([start[None], points])

    sgd, pruned = way(optax.sgd(0.02), 400), way(grda(0.02, c=1.5, mu=0.6), 6000)
    flat = jnp.array([-direction[1], direction[0]]) / jnp.linalg.norm(direction)
    sparse = valley_prune(jnp.asarray(sgd[-1]), lambda u: flat * (flat @ u), strength=4.0).params

    figure, ax = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
    x, y = np.meshgrid(np.linspace(-0.15, 1.35, 200), np.linspace(-0.15, 1.2, 200))
    ax.contourf(x, y, (x + 0.6 * y - 1) ** 2, levels=12, cmap="Greys", alpha=0.55)
    line = np.linspace(-0.15, 1.35, 2)
    ax.plot(line, (1 - line) / 0.6, color="0.35", lw=1, ls="--", label="the valley: no loss")
    ax.axhline(0, color="0.2", lw=0.8)
    ax.axvline(0, color="0.2", lw=0.8)
    ax.plot(*sgd.T, color=PROXIMAL, lw=2, label="SGD")
    ax.plot(*sgd[-1], "o", color=PROXIMAL)
    ax.plot(*pruned.T, color=DUAL, lw=2, label="gRDA")
    ax.plot(*pruned[-1], "o", color=DUAL)
    ax.plot(*start, "o", color="k", ms=5)
    ax.annotate("start", start, xytext=(-34, -4), textcoords="offset points", fontsize=9)
    ax.plot(*sparse, "x", color=THIRD, ms=11, mew=2.5, label="valley_prune, from where SGD stops")
    ax.set(xlabel="$w_1$", ylabel="$w_2$", xlim=(-0.15, 1.35), ylim=(-0.15, 1.2))
    ax.legend(fontsize=8, loc="upper right")
    _save(figure, path)


def _save(figure: "plt.Figure", path: Path) -> None:
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


FIGURES: dict[str, Callable[[Path], None]] = {"two_weights": two_weights, "valley": valley}


def main(folder: Path = FOLDER) -> None:
    """Draws all of them."""
    folder.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        draw(folder / f"{name}.png")


if __name__ == "__main__":
    main()
