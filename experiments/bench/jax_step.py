"""One optimiser step in JAX, with the batch spread over all devices, however the network is unrolled."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.bench.workloads import Workload
from experiments.devices import prepare_jax
from wrnn_jax.layers import Variables
from wrnn_jax.models import recurrent
from wrnn_jax.nn.linen import AdaptedCell
from wrnn_jax.typing import Array, Params


def unrolled(workload: Workload, backend: str, form: str = "roll", devices: int | None = None) -> Callable[[], float]:
    """A turn is one Adam step with one of our backends."""
    model = recurrent(workload.cell(form), workload.readout(), workload.inputs, outputs=workload.read, backend=backend)
    return _trains_on(workload, lambda params, xs: model.apply(Variables(params), xs)[0], devices)


def flax_rnn(workload: Workload) -> Callable[[], float]:
    """A turn is one Adam step of ``flax.linen.RNN`` over our cell."""
    rnn, readout = nn.RNN(AdaptedCell(workload.cell())), workload.readout()

    def apply(params: Params, xs: Array) -> Array:
        states = rnn.apply({"params": {"cell": params["cell"]}}, xs)
        return readout.apply(params["readout"], states if workload.read == "all" else states[:, -1])

    return _trains_on(workload, apply, None)


def _trains_on(workload: Workload, apply: Callable[[Params, Array], Array], devices: int | None) -> Callable[[], float]:
    prepare_jax()
    return trains(apply, workload.params(), workload.data(), workload.loss, devices)


def trains(
    apply: Callable[[Params, Array], Array],
    params: Params,
    data: tuple[np.ndarray, np.ndarray],
    loss: Literal["cross-entropy", "squared error"],
    devices: int | None = None,
) -> Callable[[], float]:
    """A turn is one Adam step of ``apply(params, xs)`` on the data (xs, targets), and gives the loss."""
    mesh = Mesh(jax.devices()[:devices], ("batch",))
    replicated, split = PartitionSpec(), PartitionSpec("batch")
    optimizer = optax.adam(1e-4)

    def loss_of(params: Params, xs: Array, targets: Array) -> Array:
        outputs = apply(params, xs)
        if loss == "squared error":
            return jnp.mean((outputs - targets) ** 2)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()

    def loss_and_gradient(params: Params, xs: Array, targets: Array) -> tuple[Array, Params]:
        return jax.lax.pmean(jax.value_and_grad(loss_of)(params, xs, targets), "batch")

    spread = jax.shard_map(
        loss_and_gradient, mesh=mesh, in_specs=(replicated, split, split), out_specs=replicated, check_vma=False
    )

    @jax.jit
    def step(params: Params, state: optax.OptState, xs: Array, targets: Array) -> tuple[Params, optax.OptState, Array]:
        loss, gradient = spread(params, xs, targets)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = jax.device_put(params, NamedSharding(mesh, replicated))
    state = jax.device_put(optimizer.init(params), NamedSharding(mesh, replicated))
    xs, targets = jax.device_put(data, NamedSharding(mesh, split))

    def turn() -> float:
        nonlocal params, state
        params, state, loss = jax.block_until_ready(step(params, state, xs, targets))
        return float(loss)

    return turn
