"""One step for one device, run on many: by pmap, or by jit over a sharded mesh."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.models.axis import DEVICE_AXIS

PyTree = Any


def use_devices(count: int | None) -> list[jax.Device]:
    """The first ``count`` devices (all by default); a CPU is made to show that many."""
    if count is not None:
        # Possible only before JAX starts its backends; it leaves accelerators as they are.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices()
    if count is not None and count > len(devices):
        raise ValueError(
            f"devices must be at most the {len(devices)} that JAX has here, got {count}."
        )
    return devices[:count]


class DataParallel:
    """Runs ``function(state, batch)`` on every device: the state copied, the batch split.

    The function is written for one device, and averages over the axis ``DEVICE_AXIS``. What comes
    out is the same on all of them.
    """

    def __init__(self, mode: Literal["mesh", "pmap"], devices: list[jax.Device]):
        """Takes the devices; ``mode`` says how."""
        self._mode, self._devices = mode, devices
        # Axes are Explicit by default, under which plain arrays would not fit.
        self._mesh = jax.make_mesh(
            (len(devices),), (DEVICE_AXIS,), axis_types=(AxisType.Auto,), devices=devices
        )

    @property
    def size(self) -> int:
        """The number of devices."""
        return len(self._devices)

    def wrap(
        self, function: Callable[[PyTree, PyTree], PyTree], *, donate: bool = False
    ) -> Callable[[PyTree, PyTree], PyTree]:
        """``function`` compiled for the devices; with ``donate`` the state's memory is reused."""
        donated = (0,) if donate else ()
        if self._mode == "pmap":
            compiled: Callable[[PyTree, PyTree], PyTree] = jax.pmap(
                function, axis_name=DEVICE_AXIS, devices=self._devices, donate_argnums=donated
            )
            return compiled
        mapped = jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), PartitionSpec(DEVICE_AXIS)),
            out_specs=PartitionSpec(),
            # With the check on, gradients would be summed over devices by themselves, and the
            # step of a single device would mean another thing here than under pmap.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)

    def abstract(self, state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        """Shapes and dtypes as ``replicate`` and ``split`` would place them, to compile with."""
        pmap = self._mode == "pmap"
        spread = NamedSharding(self._mesh, PartitionSpec(DEVICE_AXIS))
        copied = spread if pmap else NamedSharding(self._mesh, PartitionSpec())

        def placed(x: Any, shape: tuple[int, ...], where: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=where)

        def whole(x: Any) -> jax.ShapeDtypeStruct:
            return placed(x, (self.size, *x.shape) if pmap else x.shape, copied)

        def part(x: Any) -> jax.ShapeDtypeStruct:
            cut = (self.size, x.shape[0] // self.size, *x.shape[1:])
            return placed(x, cut if pmap else x.shape, spread)

        return jax.tree.map(whole, state), jax.tree.map(part, batch)

    def replicate(self, state: PyTree) -> PyTree:
        """The state on every device, as ``wrap`` takes it."""
        if self._mode == "pmap":
            stacked = jax.tree.map(lambda x: jnp.stack([x] * self.size), state)
            return jax.tree.map(
                lambda x: jax.device_put(x, NamedSharding(self._mesh, PartitionSpec(DEVICE_AXIS))),
                stacked,
            )
        # Copied, since what is donated must not be the caller's own.
        return jax.device_put(
            jax.tree.map(jnp.copy, state), NamedSharding(self._mesh, PartitionSpec())
        )

    def unreplicate(self, state: PyTree) -> PyTree:
        """The state as it is on one device."""
        return jax.tree.map(lambda x: x[0], state) if self._mode == "pmap" else state

    def split(self, batch: PyTree) -> PyTree:
        """The batch, an equal part of its first axis on each device."""
        if self._mode == "pmap":
            return jax.tree.map(lambda x: np.reshape(x, (self.size, -1, *np.shape(x)[1:])), batch)
        return jax.device_put(batch, NamedSharding(self._mesh, PartitionSpec(DEVICE_AXIS)))
