"""Sparse networks with optax: train once, end with exact zeros.

Generalized regularized dual averaging (gRDA) sums the updates of an optimizer and reads the weights
out of the sum through a soft threshold that grows with training time. It prunes in the directions
in which the loss is flat (Chao, Wang, Xing and Cheng, *Directional Pruning of Deep Neural
Networks*, NeurIPS 2020).

>>> import jax, jax.numpy as jnp, optax
>>> from grda_optax import grda, sparsity
>>> key = jax.random.key(0)
>>> inputs = jax.random.normal(key, (64, 200))  # 64 examples, 200 weights: flat in 136 directions
>>> labels = inputs[:, 0] - 2 * inputs[:, 1]
>>> def loss(w):
...     return jnp.mean((inputs @ w - labels) ** 2)
>>> tx = grda(learning_rate=0.02, c=0.2, mu=0.6)
>>> w = 0.1 * jax.random.normal(key, (200,))
>>> state = tx.init(w)
>>> @jax.jit
... def step(w, state):
...     updates, state = tx.update(jax.grad(loss)(w), state, w)
...     return optax.apply_updates(w, updates), state
>>> for _ in range(2000):
...     w, state = step(w, state)
>>> print(f"{sparsity(w):.2f} of the weights are zero, the loss is {loss(w):.3f}")
0.58 of the weights are zero, the loss is 0.000
"""

from ._compact import compact as compact
from ._compact import fold_constants as fold_constants
from ._curvature import gauss_newton_vp as gauss_newton_vp
from ._curvature import hvp as hvp
from ._directional import directional_prune as directional_prune
from ._directional import directional_scores as directional_scores
from ._dual_averaging import GRDAState as GRDAState
from ._dual_averaging import dual_averaging as dual_averaging
from ._eigenpairs import Eigenpairs as Eigenpairs
from ._eigenpairs import top_eigenpairs as top_eigenpairs
from ._flat import FlatProjection as FlatProjection
from ._flat import flat_projection as flat_projection
from ._grda import grda as grda
from ._grouped import group_norms as group_norms
from ._grouped import group_threshold as group_threshold
from ._groups import Blocks as Blocks
from ._groups import NofM as NofM
from ._groups import Tied as Tied
from ._interchange import from_bcoo as from_bcoo
from ._interchange import from_csr as from_csr
from ._interchange import to_bcoo as to_bcoo
from ._interchange import to_csr as to_csr
from ._load import load_sparse as load_sparse
from ._prox import ProximalOperator as ProximalOperator
from ._prox import firm as firm
from ._prox import firm_threshold as firm_threshold
from ._prox import hard_threshold as hard_threshold
from ._prox import soft_threshold as soft_threshold
from ._prune import prune_smallest as prune_smallest
from ._recipe import prune_with as prune_with
from ._saliency import Saliency as Saliency
from ._saliency import obd_saliency as obd_saliency
from ._save import save_sparse as save_sparse
from ._sequential import PruningState as PruningState
from ._sequential import sequential_directional_prune as sequential_directional_prune
from ._sparsity import Count as Count
from ._sparsity import SparsityReport as SparsityReport
from ._sparsity import mask_overlap as mask_overlap
from ._sparsity import nonzero_mask as nonzero_mask
from ._sparsity import sparsity as sparsity
from ._sparsity import sparsity_report as sparsity_report
from ._spectrum import SpectralValue as SpectralValue
from ._spectrum import spectral_function as spectral_function
from ._suggest import suggest_c as suggest_c
from ._surgeon import Surgery as Surgery
from ._surgeon import obs_prune as obs_prune
from ._surgeon import obs_saliency as obs_saliency
from ._target import target_sparsity as target_sparsity
from ._thresholds import ThresholdRule as ThresholdRule
from ._thresholds import power_threshold as power_threshold
from ._valley import ValleyPoint as ValleyPoint
from ._valley import valley_prune as valley_prune

__version__ = "0.1.0"
