"""gRDA in numpy and float64, typed from its equations; nothing here comes from the library."""

import numpy as np


def soft(v, h):
    return np.sign(v) * np.maximum(np.abs(v) - h, 0.0)


def power_increment(gamma, c, mu, n):
    """What update n adds to the threshold of the paper."""
    return c * gamma ** (0.5 + mu) * (n**mu - (n - 1) ** mu)


def grda(
    params,
    gradient,
    steps,
    learning_rate,
    c,
    mu,
    momentum=None,
    nesterov=False,
    weight_decay=0.0,
    penalised=None,
):
    """The weights after the last step, the accumulators, and the threshold.

    ``params`` is a list of arrays; ``gradient(n, w)`` gives such a list for update n = 1, 2, ...
    at the weights w; ``learning_rate(n)`` is its rate; ``penalised`` is a list of bools.
    """
    w = [np.array(p, np.float64) for p in params]
    v = [x.copy() for x in w]
    m = [np.zeros_like(x) for x in w]
    penalised = [True] * len(w) if penalised is None else penalised
    h = 0.0
    for n in range(1, steps + 1):
        gamma = learning_rate(n)
        h += power_increment(gamma, c, mu, n)
        for i, g in enumerate(gradient(n, w)):
            g = np.asarray(g, np.float64) + weight_decay * w[i]
            if momentum is not None:
                m[i] = momentum * m[i] + g
                g = g + momentum * m[i] if nesterov else m[i]
            v[i] = v[i] - gamma * g
        w = [soft(x, h) if flag else x.copy() for x, flag in zip(v, penalised, strict=True)]
    return w, v, h
