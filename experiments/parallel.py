"""One step for one device, run on many: by pmap, or by jit over a sharded mesh."""

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.models.axis import DEVICE_AXIS

PyTree = Any
Mode = Literal["mesh", "pmap", "fsdp"]


def use_devices(count: int | None) -> list[jax.Device]:
    """The first ``count`` devices of every process (all by default), process by process.

    A CPU is made to show that many.
    """
    if count is not None:
        # Possible only before JAX starts its backends; it leaves accelerators as they are.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", count)
    chosen: list[jax.Device] = []
    for process in range(jax.process_count()):
        devices = [x for x in jax.devices() if x.process_index == process]
        if count is not None and count > len(devices):
            of = f" in process {process}" if jax.process_count() > 1 else ""
            raise ValueError(
                f"devices must be at most the {len(devices)} that JAX has here{of}, got {count}."
            )
        chosen += devices[:count]
    return chosen


class DataParallel:
    """Runs ``function(state, batch)`` on every device: the batch split, the state copied.

    The function is written for one device, and averages over the axis ``DEVICE_AXIS``. What comes
    out is the same on all of them. With ``fsdp`` the state is split too: every array along its
    largest axis that the number of devices divides, as is what comes out. For the function it is
    put together; what needs the batch no more (``then``) works on the parts.

    The devices may be of several processes. Then all processes have to do the same, and each holds
    its own part of a batch.
    """

    def __init__(self, mode: Mode, devices: list[jax.Device]):
        """Takes the devices, process by process; ``mode`` says how."""
        self._mode, self._devices = mode, devices
        # Axes are Explicit by default, under which plain arrays would not fit.
        self._mesh = _mesh(devices)
        here = [x for x in devices if x.process_index == jax.process_index()]
        self._first, self._here = devices.index(here[0]), _mesh(here)
        self._several = len(here) < len(devices)
        self._gather = jax.jit(
            lambda state: state, out_shardings=NamedSharding(self._mesh, PartitionSpec())
        )

    @property
    def size(self) -> int:
        """The number of devices."""
        return len(self._devices)

    def wrap(
        self,
        function: Callable[[PyTree, PyTree], PyTree],
        *,
        then: Callable[[PyTree, PyTree], PyTree] | None = None,
        name: str | None = None,
        donate: bool = False,
    ) -> Callable[[PyTree, PyTree], PyTree]:
        """``function`` compiled for the devices, followed by ``then(state, found)`` if given.

        ``then`` is for what is the same on every device, such as the optimizer's update, and may
        not use ``DEVICE_AXIS``: with ``fsdp`` it sees the devices' parts as one array. With
        ``donate`` the state's memory is reused. The program's ``name``, the function's by default,
        is what logs and profiles show.
        """
        donated = (0,) if donate else ()
        if name is None:
            name = getattr(getattr(function, "func", function), "__name__", "step")

        finish = then or (lambda state, found: found)

        def whole(state: PyTree, batch: PyTree) -> PyTree:
            return finish(state, function(state, batch))

        whole.__name__ = name
        if self._mode == "pmap":
            compiled: Callable[[PyTree, PyTree], PyTree] = jax.pmap(
                whole, axis_name=DEVICE_AXIS, devices=self._devices, donate_argnums=donated
            )
            return compiled
        if self._mode == "mesh":
            return jax.jit(self._on_each(whole), donate_argnums=donated)

        def on_parts(state: PyTree, batch: PyTree) -> PyTree:
            # Only what the function uses of the state is gathered: the compiler drops the rest.
            found = self._on_each(function)(state, batch)
            return jax.tree.map(
                lambda x: jax.lax.with_sharding_constraint(x, self._of_state(x.shape)),
                finish(state, found),
            )

        on_parts.__name__ = name
        return jax.jit(on_parts, donate_argnums=donated)

    def _on_each(
        self, function: Callable[[PyTree, PyTree], PyTree]
    ) -> Callable[[PyTree, PyTree], PyTree]:
        mapped: Callable[[PyTree, PyTree], PyTree] = jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), PartitionSpec(DEVICE_AXIS)),
            out_specs=PartitionSpec(),
            # With the check on, gradients would be summed over devices by themselves, and the
            # step of a single device would mean another thing here than under pmap.
            check_vma=False,
        )
        return mapped

    def abstract(self, state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        """Shapes and dtypes as ``replicate`` and ``split`` would place them, to compile with."""
        pmap = self._mode == "pmap"
        spread = NamedSharding(self._mesh, PartitionSpec(DEVICE_AXIS))

        def placed(x: Any, shape: tuple[int, ...], where: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=where)

        def whole(x: Any) -> jax.ShapeDtypeStruct:
            if pmap:
                return placed(x, (self.size, *x.shape), spread)
            return placed(x, x.shape, self._of_state(x.shape))

        def part(x: Any) -> jax.ShapeDtypeStruct:
            cut = (self.size, x.shape[0] // self.size, *x.shape[1:])
            return placed(x, cut if pmap else x.shape, spread)

        return jax.tree.map(whole, state), jax.tree.map(part, batch)

    def _of_state(self, shape: tuple[int, ...]) -> NamedSharding:
        spec = split_largest(shape, self.size) if self._mode == "fsdp" else PartitionSpec()
        return NamedSharding(self._mesh, spec)

    def replicate(self, state: PyTree) -> PyTree:
        """The state, whole and the same in every process, as ``wrap`` takes it.

        Raises:
            AssertionError: it is not the same in every process.
        """
        if self._several:
            _check_equal(state)
        if self._mode == "pmap":
            count = self._here.size
            stacked = jax.tree.map(lambda x: jnp.stack([x] * count), state)
            return jax.tree.map(
                lambda x: jax.device_put(x, NamedSharding(self._here, PartitionSpec(DEVICE_AXIS))),
                stacked,
            )
        if self._several:
            return jax.tree.map(self._from_host, state)
        # Copied, since what is donated must not be the caller's own.
        return jax.tree.map(lambda x: jax.device_put(jnp.copy(x), self._of_state(x.shape)), state)

    def _from_host(self, x: jax.Array) -> jax.Array:
        whole = np.array(x)
        return jax.make_array_from_callback(
            whole.shape, self._of_state(whole.shape), lambda index: whole[index]
        )

    def unreplicate(self, state: PyTree) -> PyTree:
        """The state whole, as it is on one device; in several processes on one of this one's."""
        if self._mode == "pmap":
            return jax.tree.map(lambda x: x[0], state)
        if self._mode == "fsdp":
            state = self._gather(state)
        return jax.tree.map(lambda x: x.addressable_data(0), state) if self._several else state

    def to_save(self, state: PyTree) -> PyTree:
        """The state for a checkpoint, which has every number once.

        It is on the host; or in several processes in arrays over all of them, of which each writes
        a part.
        """
        if not self._several:
            return jax.tree.map(np.asarray, self.unreplicate(state))
        if self._mode == "pmap":
            return jax.tree.map(self._from_host, self.unreplicate(state))
        return state

    def rows(self, count: int) -> slice:
        """Which examples of a batch of so many are for the devices of this process."""
        each = count // self.size
        return slice(self._first * each, (self._first + self._here.size) * each)

    def split(self, batch: PyTree) -> PyTree:
        """The whole batch, an equal part of its first axis on each device."""
        if not self._several:
            return self.place(batch)
        return self.place(jax.tree.map(lambda x: x[self.rows(len(x))], batch))

    def place(self, examples: PyTree) -> PyTree:
        """A batch of which every process gives its ``rows``, an equal part on each device."""
        if self._mode == "pmap":
            count = self._here.size
            return jax.tree.map(lambda x: np.reshape(x, (count, -1, *np.shape(x)[1:])), examples)
        sharding = NamedSharding(self._mesh, PartitionSpec(DEVICE_AXIS))
        if not self._several:
            return jax.device_put(examples, sharding)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(
                sharding, x, (len(x) // self._here.size * self.size, *x.shape[1:])
            ),
            examples,
        )


def _check_equal(state: PyTree) -> None:
    """Each process has made it by itself, and on machines of several kinds bits may differ."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    multihost_utils.assert_equal(
        np.frombuffer(digest.digest(), np.int32),
        "the processes have found different weights; they must run on machines of one kind",
    )


def split_largest(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Splits the largest axis that can be cut into so many equal parts, the first of equal ones."""
    axes = [axis for axis, length in enumerate(shape) if length and length % parts == 0]
    if not axes:
        return PartitionSpec()
    largest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, DEVICE_AXIS)


def _mesh(devices: list[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (DEVICE_AXIS,), axis_types=(AxisType.Auto,))
