"""Dropout whose masks are the same on any number of devices."""

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.axis import DEVICE_AXIS


class Noise(nnx.BatchStat[jax.Array]):
    """What masks are drawn from. It goes where BatchNorm's statistics go, and is kept with them."""


class Dropout(nnx.Module):
    """Sets units to zero with probability ``rate`` in training, and scales up the others.

    Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*, 2014.
    The mask of an example follows from the network's seed, from how many batches there were before
    and from the example's place in its batch: so a run that goes on, or one on more devices, has
    the masks that it would have had.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        """Draws the seed of the masks."""
        self.rate = rate
        self.deterministic = False  # `nnx.Module.eval` and `train` set it
        self.key = Noise(jax.random.bits(rngs.params(), (2,), "uint32"))
        self.batches = Noise(jnp.zeros([], jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, units), the part of a batch that a device has."""
        if self.deterministic:
            return x
        key = jax.random.wrap_key_data(self.key[...], impl="threefry2x32")
        key = jax.random.fold_in(key, self.batches[...])
        places = jax.lax.axis_index(DEVICE_AXIS) * x.shape[0] + jnp.arange(x.shape[0])

        def keep(place: jax.Array) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, place), 1 - self.rate, x.shape[1:])

        self.batches[...] += 1
        return jnp.where(jax.vmap(keep)(places), x / (1 - self.rate), 0)
