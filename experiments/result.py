"""What a finished run comes to: the row that studies and reports are made from."""

from typing import Any

import jax
import numpy as np

from experiments.log import Row
from grda_optax import SparsityReport


def summarise(
    rows: list[Row], counts: SparsityReport, gradient_evaluations: int, opt_state: Any
) -> Row:
    """The scores of the last row, the nonzero weights, and what it has cost.

    Args:
        rows: of the metrics, the last one scored.
        counts: of the final weights.
        gradient_evaluations: on a batch each; a Hessian-vector product is two.
        opt_state: of one device.
    """
    last = rows[-1]
    return {
        "steps": last["step"],
        "seconds": last["seconds"],
        "gradient_evaluations": gradient_evaluations,
        "state_bytes": sum(np.asarray(x).nbytes for x in jax.tree.leaves(opt_state)),
        # None is the loss of an update that was skipped, since it was not finite.
        "train_loss": float(np.mean([x["loss"] for x in rows[-50:] if x["loss"] is not None])),
        "eval_accuracy": last["eval_accuracy"],
        "eval_loss": last["eval_loss"],
        "threshold": last.get("threshold"),
        "penalised": {"nnz": counts.penalised.nnz, "total": counts.penalised.total},
        "all": {"nnz": counts.all.nnz, "total": counts.all.total},
        "leaves": {
            name: {"nnz": count.nnz, "total": count.total, "penalised": count.penalised}
            for name, count in counts.leaves.items()
        },
    }
