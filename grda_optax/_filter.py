r"""The filter by which training time separates steep directions from flat ones.

.. math::
    \phi_\mu(x) = \mu \int_0^1 e^{-x (1 - u)} u^{\mu - 1} \, du = {}_1F_1(1;\, 1 + \mu;\, -x)
"""

import numpy as np

SWITCH = 60.0
"""Where the rest of the asymptotic series, of the order of exp(-x), is below float64's rounding."""


def phi(x: np.ndarray, mu: float) -> np.ndarray:
    r"""The filter :math:`\phi_\mu` at :math:`x \ge 0`; what is below 0 counts as 0.

    It is 1 at 0, about :math:`\mu / x` for large :math:`x`, and one half near :math:`x = 1.1` to
    1.5. With :math:`x = t \lambda` it says how much of a direction of curvature :math:`\lambda` is
    still left to the threshold after training time :math:`t`. At negative :math:`x` it would grow
    like :math:`e^{|x|}`: such a direction of a network that is not at its minimum is taken as flat.

    Up to 60 by Kummer's series, :math:`e^{-x} \sum_k \frac{\mu}{\mu + k} \frac{x^k}{k!}`, all of
    whose terms are positive; beyond by :math:`\frac{\mu}{x} \sum_k (1-\mu)_k x^{-k}`.
    """
    x = np.maximum(np.asarray(x, np.float64), 0.0)
    near = np.minimum(x, SWITCH)
    term = np.exp(-near)
    small = np.zeros_like(near)
    for k in range(int(3 * SWITCH)):
        small += term * (mu / (mu + k))
        term = term * near / (k + 1)
    far = np.maximum(x, SWITCH)
    term, large = mu / far, np.zeros_like(far)
    for k in range(30):
        large += term
        term = term * (k + 1 - mu) / far
    value: np.ndarray = np.where(x < SWITCH, small, large)
    return value
