"""A small transformer that predicts the next character, sized for two cores."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.widths import Width, units

WIDTH = 128
HEADS = 4
HEAD = WIDTH // HEADS


class CharTransformer(nnx.Module):
    """Two causal pre-norm blocks, width 128, 4 heads: 429,921 weights for 97 symbols, 64 at once.

    As GPT-2 in small, with learned positions: Radford et al., *Language models are unsupervised
    multitask learners*, 2019.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_symbols: int,
        *,
        rngs: nnx.Rngs,
        width: Width = 1.0,
    ):
        """Makes the layers for texts of this many characters.

        With ``width`` times the heads and hidden units; or, block by block, so many of both. What
        the blocks add to is as wide as ever, since the norms are over all of it.
        """
        (context,) = shape
        heads1, hidden1, heads2, hidden2 = units(2 * (HEADS, 4 * WIDTH), width)
        self.embedding = nnx.Embed(num_symbols, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(context, WIDTH, rngs=rngs)
        self.block1 = Block(heads1, hidden1, rngs)
        self.block2 = Block(heads2, hidden2, rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, num_symbols, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """(batch, characters) to the logits of each next one (batch, characters, symbols)."""
        x = self.embedding(tokens.astype(jnp.int32)) + self.positions(jnp.arange(tokens.shape[1]))
        x = self.block2(self.block1(x))
        return self.head(self.norm(x))


class Block(nnx.Module):
    """Attention and a hidden layer, each added to what came in."""

    def __init__(self, heads: int, hidden: int, rngs: nnx.Rngs):
        """Makes the layers."""
        self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.Linear(WIDTH, 3 * heads * HEAD, rngs=rngs)
        self.projection = nnx.Linear(heads * HEAD, WIDTH, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.dense1 = nnx.Linear(WIDTH, hidden, rngs=rngs)
        self.dense2 = nnx.Linear(hidden, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, characters, width) to the same shape."""
        x = x + self.projection(attend(self.attention(self.norm1(x))))
        return x + self.dense2(nnx.gelu(self.dense1(self.norm2(x))))


def attend(joined: jax.Array) -> jax.Array:
    """Attention of each character to itself and to those before it.

    Args:
        joined: queries, keys and values side by side (batch, characters, 3 * heads * 32).

    Returns:
        (batch, characters, heads * 32), the heads side by side.
    """
    batch, length, _ = joined.shape
    queries, keys, values = (
        x.reshape(batch, length, -1, HEAD) for x in jnp.split(joined, 3, axis=-1)
    )
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, keys) / math.sqrt(HEAD)
    causal = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, values).reshape(batch, length, -1)
