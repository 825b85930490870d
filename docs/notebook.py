# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Prune your own network
#
# A notebook: train a small network that becomes sparse, look inside its layers, save it, load it.
# It is kept as a script, `docs/notebook.py`; `jupytext --to ipynb docs/notebook.py` makes the
# notebook of it, and the test suite runs it.
#
# Put your own data and your own model in the first two cells. The cells below name its layers,
# `hidden` and `out`, and the map of 4 x 4 places between them: change them with the model.

# %%
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

digits = load_digits()
images = jnp.asarray(digits.images[..., None] / 16, jnp.float32)
labels = jnp.asarray(digits.target)
train, test = slice(0, 1400), slice(1400, None)

# %% [markdown]
# ## The network
#
# A convolution and two dense layers. Nothing in it knows about pruning.


# %%
class Network(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(128, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv(x)).reshape(len(x), -1)
        return self.out(nnx.relu(self.hidden(x)))


model = Network(nnx.Rngs(0))

# %% [markdown]
# ## Train it
#
# The optimizer is wrapped by `prune_with`; the loop is the usual one. Every ten steps we note how
# sparse the network is and what its loss is.

# %%
from grda_optax import prune_with, sparsity

steps = 150
tx = prune_with(optax.adam(0.01), sparsity=0.9, total_steps=steps)
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer):
    def loss(model):
        logits = model(images[train])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[train]).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


history = []
for step in range(steps):
    value = train_step(model, optimizer)
    if step % 10 == 9:
        history.append(
            (step + 1, float(value), float(sparsity(nnx.state(model, nnx.Param), mask="kernel$")))
        )

# %% [markdown]
# The sparsity grows along a ramp until 60 % of the training, and the zeros are frozen at 75 %.

# %%
for step, value, zeros in history[::3]:
    print(f"step {step:3}: loss {value:.3f}, {100 * zeros:.1f} % zeros")

# %% [markdown]
# ## Look inside
#
# The report counts every layer. The penalised leaves are the kernels, and all together they have
# the sparsity that was asked for.

# %%
from grda_optax import nonzero_mask, sparsity_report

params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
report = sparsity_report(params, mask="kernel$")
print(report)
assert report.penalised.nnz == round(0.1 * report.penalised.total)

# %% [markdown]
# Which places of the feature map, which is four by four, does the first dense layer still read?
# Count the weights that leave each of them.

# %%
alive = nonzero_mask(params)["hidden"]["kernel"].reshape(4, 4, 8, 64)
print(alive.sum((2, 3)))

# %% [markdown]
# Hidden units of which no weight is left are no longer part of the network.

# %%
reads = nonzero_mask(params)["hidden"]["kernel"].any(0)
is_read = nonzero_mask(params)["out"]["kernel"].any(1)
print(f"{int((reads & is_read).sum())} of {len(reads)} hidden units are in use")

# %% [markdown]
# ## What has it cost?


# %%
def accuracy(model):
    return float((model(images[test]).argmax(-1) == labels[test]).mean())


print(f"accuracy on digits it has not seen: {100 * accuracy(model):.1f} %")
assert accuracy(model) > 0.8

# %% [markdown]
# ## Save it, load it
#
# In the file a zero costs one bit. What comes back is equal, bit by bit.

# %%
import tempfile
from pathlib import Path

from grda_optax import load_sparse, save_sparse

path = Path(tempfile.mkdtemp()) / "digits.safetensors"
size = save_sparse(path, nnx.state(model, nnx.Param))
dense = sum(x.nbytes for x in jax.tree.leaves(params))
print(f"{size:,} bytes instead of {dense:,}")

# %%
copy = Network(nnx.Rngs(1))
state = nnx.state(copy, nnx.Param)
nnx.replace_by_pure_dict(state, load_sparse(path))
nnx.update(copy, state)
assert (copy(images[test]) == model(images[test])).all()
