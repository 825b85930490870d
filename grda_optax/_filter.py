r"""The filter by which training time separates steep directions from flat ones.

.. math::
    \phi_\mu(x) = \mu \int_0^1 e^{-x (1 - u)} u^{\mu - 1} \, du = {}_1F_1(1;\, 1 + \mu;\, -x)
"""

import numpy as np

SWITCH = 60.0
"""Where the rest of the asymptotic series, of the order of exp(-x), is below float64's rounding."""


def phi(x: np.ndarray, mu: float) -> np.ndarray:
    r"""The filter :math:`\phi_\mu`, and below 0 its mirror image :math:`2 - \phi_\mu(-x)`.

    It is 1 at 0, about :math:`\mu / x` for large :math:`x`, and one half near :math:`x = 1.1` to
    1.5. With :math:`x = t \lambda` it says how much of a direction of curvature :math:`\lambda` is
    still left to the threshold after training time :math:`t`. At negative :math:`x` it would grow
    like :math:`e^{|x|}`; the mirror image has the same slope at 0 and stays below 2, so a network
    that is not at its minimum does not blow up. To cut it off at 1 would put a kink where most
    eigenvalues are, and Lanczos would take many times the products.

    Up to 60 by Kummer's series, :math:`e^{-x} \sum_k \frac{\mu}{\mu + k} \frac{x^k}{k!}`, all of
    whose terms are positive; beyond by :math:`\frac{\mu}{x} \sum_k (1-\mu)_k x^{-k}`.
    """
    x = np.asarray(x, np.float64)
    size = np.abs(x)
    near = np.minimum(size, SWITCH)
    term = np.exp(-near)
    small = np.zeros_like(near)
    for k in range(int(3 * SWITCH)):
        small += term * (mu / (mu + k))
        term = term * near / (k + 1)
    far = np.maximum(size, SWITCH)
    term, large = mu / far, np.zeros_like(far)
    for k in range(30):
        large += term
        term = term * (k + 1 - mu) / far
    value = np.where(size < SWITCH, small, large)
    mirrored: np.ndarray = np.where(x < 0, 2 - value, value)
    return mirrored
