"""What a grid will need: estimates against sums done by hand and XLA's own accounts; limits read; real shortage."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from helpers import at_step
from wrnn_jax.cells import wave
from wrnn_jax.cells.base import unroll
from wrnn_jax.datasets.base import Images
from wrnn_jax.grids import available
from wrnn_jax.grids.available import available_bytes, host_bytes
from wrnn_jax.grids.liveness import size, working_bytes
from wrnn_jax.grids.memory import MARGIN, compiled_bytes, is_out_of_memory, plan
from wrnn_jax.layers import Variables
from wrnn_jax.models import configure
from wrnn_jax.tasks import AddingConfig, CopyConfig, PixelConfig, Source, adding_task, copy_task, pixel_task
from wrnn_jax.training.optimizer import Hparams, make_optimizer
from wrnn_jax.validation import InvalidValue

FLOAT = 4
"""Bytes."""


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_size_counts_every_leaf_in_its_dtype():
    tree = {"a": jnp.zeros((3, 5)), "b": (np.zeros(7, np.uint8), floats(2, 2)), "c": jnp.zeros(4, jnp.bool_), "d": None}
    assert size(tree) == 3 * 5 * 4 + 7 + 2 * 2 * 4 + 4
    assert size(jnp.float32(1)) == 4


@pytest.mark.parametrize("links", [1, 2, 7])
def test_a_value_takes_memory_until_it_is_last_read(links):
    """A chain of operations is computed in place, beside the argument; its links are kept only if all are results."""

    def chain(x):
        values = [x]
        for _ in range(links):
            values.append(jnp.sin(values[-1]))
        return values[1:]

    assert working_bytes(lambda x: chain(x)[-1], floats(1000)) == 1000 * FLOAT
    assert working_bytes(chain, floats(1000)) == links * 1000 * FLOAT


def test_nothing_is_computed():
    """More than any machine holds: the cosines, and their sum."""
    assert working_bytes(lambda x: jnp.cos(x).sum(), floats(2**50)) == 2**50 * FLOAT + FLOAT


def with_its_own_derivative(function):
    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(lambda x: (function(x), x), lambda x, cotangent: (cotangent * x,))
    return wrapped


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, with_its_own_derivative, lambda f: jax.jit(jax.jit(f))])
def test_what_is_inside_a_call_counts_as_if_it_stood_outside(wrap):
    def function(x):
        return x * jnp.cos(jnp.sin(x))

    plain, wrapped = (working_bytes(lambda x, f=f: f(2.0 * x), floats(300)) for f in (function, wrap(function)))
    assert plain == wrapped == 2 * 300 * FLOAT, "2 x is still read after its sine is there"


def test_what_nobody_reads_is_not_held():
    def function(x):
        x, _ = lax.scan(lambda h, _: (h + 1.0, h), x, length=400)
        return x[:, None] * x[None]

    assert 400 * 300 * FLOAT <= working_bytes(function, floats(300)) <= 403 * 300 * FLOAT


def test_of_branches_the_greater_counts():
    def function(large, x):
        return lax.cond(large, lambda x: jnp.outer(x, x).sum(axis=0), lambda x: x + 1.0, x)

    at_least = (200 * 200 + 200) * FLOAT
    assert at_least <= working_bytes(function, jax.ShapeDtypeStruct((), jnp.bool_), floats(200)) <= at_least + 1000


def test_a_loop_that_fills_an_array_holds_it_once():
    def fill(x):
        def put(t, array):
            return array.at[t].set(x * jnp.float32(t))

        return lax.fori_loop(0, 500, put, jnp.zeros((500, 100)))

    assert 500 * 100 * FLOAT <= working_bytes(fill, floats(100)) <= 503 * 100 * FLOAT


def test_a_loop_holds_its_carry_beside_what_the_next_is_made_from():
    def function(x):
        return lax.fori_loop(0, 5, lambda _, h: h * jnp.cos(jnp.sin(h)), x)

    assert 2 * 1000 * FLOAT <= working_bytes(function, floats(1000)) <= 2 * 1000 * FLOAT + 100


def test_a_loop_holds_what_it_stacks_beside_what_a_step_needs():
    def function(x):
        def step(h, _):
            return jnp.tanh(h[:, None] * h[None]).sum(axis=0), h

        return lax.scan(step, x, length=60)

    stacked, in_a_step = 60 * 100, 100 * 100
    assert (stacked + in_a_step) * FLOAT <= working_bytes(function, floats(100)) <= (stacked + in_a_step + 400) * FLOAT


def recurrence(w, h):
    """L = Σ h_T after h_{t+1} = sin(w h_t), 50 steps."""
    return lax.scan(lambda h, _: (jnp.sin(w[None] * h), None), h, length=50)[0].sum()


@given(steps=st.integers(1, 60), batch=st.integers(1, 9), neurons=st.integers(1, 9))
def test_a_backward_pass_needs_what_jax_stacks_of_every_step(steps, batch, neurons):
    def loss(w, h):
        return lax.scan(lambda h, _: (jnp.sin(w[None] * h), None), h, length=steps)[0].sum()

    w, h = floats(neurons), floats(batch, neurons)
    residuals = jax.eval_shape(lambda w, h: jax.vjp(lambda w: loss(w, h), w)[1], w, h)
    stacked = size([leaf for leaf in jax.tree.leaves(residuals) if leaf.ndim == 3])
    assert stacked == 2 * steps * size(h), "h_t and cos(w h_t)"
    assert stacked <= working_bytes(jax.grad(loss), w, h) <= stacked + 12 * size(h)


def test_members_at_once_multiply_and_members_in_turn_only_add_their_results():
    one = working_bytes(jax.grad(recurrence), floats(10), floats(20, 10))
    at_once = working_bytes(jax.vmap(jax.grad(recurrence)), floats(8, 10), floats(8, 20, 10))
    in_turn = working_bytes(
        lambda *members: lax.map(lambda member: jax.grad(recurrence)(*member), members),
        floats(8, 10),
        floats(8, 20, 10),
    )
    assert at_once == pytest.approx(8 * one, rel=0.05)
    assert in_turn == pytest.approx(one + 8 * 10 * FLOAT, rel=0.05)


def test_recomputing_segments_takes_about_the_square_root():
    cell = wave(channels=4, neurons=25)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 3))

    def needs(remat):
        def loss(params, xs):
            return unroll(cell, params, xs, outputs="last", remat=remat).outputs.sum()

        return working_bytes(jax.grad(loss), params, floats(4, 400, 3))

    assert needs(True) < needs(False) / 5


def images(side):
    pixels = np.zeros((1797, side, side, 1), np.uint8)
    labels = np.zeros(1797, np.int32)
    return Images(pixels, labels, pixels[:10], labels[:10], classes=10, peak=16, note="")


def runs(copy_T, adding_T, side):
    """Tasks and models, by name."""
    copying, adding = copy_task(CopyConfig(T=copy_T)), adding_task(AddingConfig(T=adding_T))
    pixels = pixel_task(PixelConfig(dataset="digits"), images(side))
    return {
        "copy, wrnn, scan": (copying, configure("wrnn", backend="scan")),
        "copy, wrnn, fused": (copying, configure("wrnn", backend="fused")),
        "copy, linear, parallel": (copying, configure("wrnn", act="identity", backend="parallel")),
        "copy, irnn, scan": (copying, configure("irnn", backend="scan")),
        "adding, wrnn, scan": (adding, configure("wrnn", n_ch=27, backend="scan")),
        "pixels, wrnn-mlp, fused": (pixels, configure("wrnn-mlp", n_hid=64, n_ch=16, backend="fused")),
    }


SHORT_RUNS, RUNS_OF_THE_PAPER = runs(copy_T=80, adding_T=100, side=8), runs(copy_T=480, adding_T=1000, side=28)


def training_step(task, config, batch, members=None):
    """A step of Adam of one run, or of several vmapped, and its abstract arguments."""
    model = config.build(task.signature)
    optimizer = make_optimizer(Hparams(1e-3, 1.0))

    def loss_of(params, inputs, targets):
        return task.loss(model.apply(Variables(params), inputs)[0], targets)

    def step(source, params, opt_state, seed):
        inputs, targets = task.batch(source, jax.random.key(seed), at_step(0), batch)
        loss, gradient = jax.value_and_grad(loss_of)(params, inputs, targets)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    def init(seed):
        params = model.init(jax.random.key(seed)).params
        return params, optimizer.init(params), seed

    source = Source(task.source.data, dict(task.source.fixed))
    source = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), source)
    seeds = jax.ShapeDtypeStruct(() if members is None else (members,), jnp.int32)
    if members is None:
        return step, (source, *jax.eval_shape(init, seeds))
    return jax.vmap(step, (None, 0, 0, 0)), (source, *jax.eval_shape(jax.vmap(init), seeds))


def assert_estimated(step, args, factor):
    """Within a factor either way of all that XLA allocates beside the arguments."""
    xla = compiled_bytes(jax.jit(step).lower(*args).compile()) - size(args)
    assert xla / factor <= working_bytes(step, *args) <= xla * factor


@pytest.mark.usefixtures("standard_promotion")
def test_a_training_step_is_estimated_to_a_factor_of_one_and_a_half():
    """Of one run by an engine of its own, and of several at once by the scan; the slow tests have the others."""
    assert_estimated(*training_step(*SHORT_RUNS["copy, wrnn, fused"], batch=64), factor=1.5)
    task, _ = SHORT_RUNS["copy, wrnn, scan"]
    assert_estimated(*training_step(task, configure("wrnn", n_hid=50, backend="scan"), batch=32, members=4), factor=1.5)


@pytest.fixture
def optimised():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion", "optimised")
@pytest.mark.parametrize(("name", "members"), [*((name, 8) for name in RUNS_OF_THE_PAPER), ("copy, wrnn, scan", None)])
def test_so_are_programs_as_users_run_them(name, members):
    assert_estimated(*training_step(*RUNS_OF_THE_PAPER[name], batch=128, members=members), factor=1.5)


def test_xlas_account_is_arguments_results_and_what_is_between():
    n = 1000
    add = jax.jit(lambda x: x + 1.0).lower(floats(n)).compile()
    assert compiled_bytes(add) == 2 * n * FLOAT
    in_place = jax.jit(lambda x: x + 1.0, donate_argnums=0).lower(floats(n)).compile()
    assert compiled_bytes(in_place) == n * FLOAT
    of_temporaries = jax.jit(jax.grad(recurrence)).lower(floats(10), floats(20, 10)).compile()
    assert compiled_bytes(of_temporaries) > 2 * 50 * 20 * 10 * FLOAT, "h_t and cos(w h_t)"
    assert compiled_bytes(SimpleNamespace(memory_analysis=lambda: None)) is None


MEMBERS, BYTES = st.integers(1, 200), st.integers(1, 10**6)


@given(members=MEMBERS, shared=st.integers(0, 10**6), each=BYTES, available=st.integers(0, 10**8))
def test_a_plan_has_the_fewest_rounds_that_fit(members, shared, each, available):
    def bytes_of(n):
        return shared + n * each

    found = plan(members, bytes_of, available)
    assert found.capacity == int((1 - MARGIN) * available)
    fitting = [n for n in range(1, members + 1) if bytes_of(n) <= found.capacity]
    assert found.fits == bool(fitting)
    assert found.bytes == bytes_of(found.at_once)
    assert found.rounds == math.ceil(members / max(fitting, default=1))
    # All are trained, and no round could be left out or be smaller.
    assert found.at_once * (found.rounds - 1) < members <= found.at_once * found.rounds
    assert (found.at_once - 1) * found.rounds < members


@given(members=MEMBERS, lines=st.lists(st.tuples(BYTES, BYTES), min_size=1, max_size=4), available=BYTES)
def test_a_plan_for_several_programs_fits_whenever_one_member_does(members, lines, available):
    asked = []

    def bytes_of(n):
        asked.append(n)
        return max(shared + n * each for shared, each in lines)

    found = plan(members, bytes_of, available)
    assert len(asked) <= 3, "each takes a trace of the programs"
    assert found.fits == (bytes_of(1) <= found.capacity)


def test_members_that_share_everything_and_unknown_capacities_are_planned_too():
    assert plan(5, lambda n: 100, 10)[:2] == (1, 5)
    assert plan(5, lambda n: 100, 200)[:2] == (5, 1)
    found = plan(5, lambda n: n * 10**18, None)
    assert found[:2] == (5, 1)
    assert found.fits


@pytest.mark.parametrize(
    ("members", "available", "field"), [(0, 10, "members"), (1.5, 10, "members"), (1, -1, "available")]
)
def test_a_plan_of_nothing_is_refused(members, available, field):
    with pytest.raises(InvalidValue, match=f"^{field} = "):
        plan(members, lambda n: n, available)


def write(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


MEMINFO = {"proc/meminfo": "MemTotal:       16000 kB\nMemAvailable:    8000 kB\n"}
SYSTEM = 8000 * 1024
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
JOB = "system.slice/slurmstepd.scope/job_7"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, SYSTEM),
        # Version 2: the own group has no limit, its parent has; the file cache would be given up.
        (
            {
                "proc/self/cgroup": f"0::/{JOB}/step_0\n",
                f"{V2}/{JOB}/step_0/memory.max": "max\n",
                f"{V2}/{JOB}/step_0/memory.current": "1000\n",
                f"{V2}/{JOB}/memory.max": "5000000\n",
                f"{V2}/{JOB}/memory.current": "2000000\n",
                f"{V2}/{JOB}/memory.stat": "anon 1\ninactive_file 300000\nactive_file 9\n",
            },
            3_300_000,
        ),
        # The soft limit is heeded as well.
        (
            {
                "proc/self/cgroup": "0::/a\n",
                f"{V2}/a/memory.max": "5000000\n",
                f"{V2}/a/memory.high": "4000000\n",
                f"{V2}/a/memory.current": "1000000\n",
            },
            3_000_000,
        ),
        # A container that sees only its own group, under the root.
        (
            {
                "proc/self/cgroup": "0::/docker/123\n",
                f"{V2}/memory.max": "600000\n",
                f"{V2}/memory.current": "100000\n",
            },
            500_000,
        ),
        # Version 1, mixed with an empty version 2.
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/slurm/uid_1/job_2\n0::/\n",
                f"{V1}/memory.limit_in_bytes": "9223372036854771712\n",
                f"{V1}/memory.usage_in_bytes": "7000000000\n",
                f"{V1}/slurm/uid_1/job_2/memory.limit_in_bytes": "3000000\n",
                f"{V1}/slurm/uid_1/job_2/memory.usage_in_bytes": "500000\n",
                f"{V1}/slurm/uid_1/job_2/memory.stat": "inactive_file 5\ntotal_inactive_file 100000\n",
            },
            2_600_000,
        ),
        # More in use than allowed, as for a moment it can be.
        ({"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "10\n", f"{V2}/memory.current": "20\n"}, 0),
    ],
    ids=["system", "parent", "high", "container", "version 1", "beyond"],
)
def test_the_least_limit_counts(files, expected, tmp_path):
    write(tmp_path, MEMINFO | files)
    assert host_bytes(tmp_path) == expected


def test_the_limits_of_the_process_count(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: 500 * resource.getpagesize()}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    write(tmp_path, MEMINFO | {"proc/self/statm": "900 80 70 60 0 200 0\n"})
    assert host_bytes(tmp_path) == 300 * resource.getpagesize()
    limits[resource.RLIMIT_AS] = 1000 * resource.getpagesize()
    assert host_bytes(tmp_path) == 100 * resource.getpagesize()


def test_without_any_file_the_whole_memory_counts_if_the_system_tells_it(tmp_path, monkeypatch):
    monkeypatch.setattr(available.os, "sysconf_names", {"SC_PHYS_PAGES": 1}, raising=False)
    monkeypatch.setattr(available.os, "sysconf", {"SC_PHYS_PAGES": 6, "SC_PAGE_SIZE": 4096}.get, raising=False)
    assert host_bytes(tmp_path) == 6 * 4096
    monkeypatch.setattr(available.os, "sysconf_names", {})
    assert host_bytes(tmp_path) is None


def test_an_accelerator_says_what_it_has_and_cpu_devices_share_the_host(monkeypatch):
    def device(stats):
        return SimpleNamespace(platform="gpu", memory_stats=lambda: stats)

    assert available_bytes(device({"bytes_limit": 1000, "bytes_in_use": 300, "peak_bytes_in_use": 900})) == 700
    assert available_bytes(device(None)) is available_bytes(device({"bytes_in_use": 3})) is None
    cpu = jax.devices("cpu")[0]
    monkeypatch.setattr(available, "host_bytes", lambda: 1001)
    assert available_bytes(cpu) == 1001 // 2
    monkeypatch.setattr(available, "host_bytes", lambda: None)
    assert available_bytes(cpu) is None


JaxError = jax.errors.JaxRuntimeError
SHORT = [
    MemoryError(),
    JaxError("RESOURCE_EXHAUSTED: Out of memory allocating 64064000240 bytes."),
    JaxError("INTERNAL: Error dispatching computation: Out of memory allocating 64064000240 bytes."),
    JaxError("RESOURCE_EXHAUSTED: no memory for the segments of wrnn_jax.kernels.native"),
    JaxError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2 bytes.\nBuffer 1:\n  in shared memory"),
    JaxError("RESOURCE_EXHAUSTED: Failed to allocate request for 6.27GiB (6727663616B) on device ordinal 0"),
    JaxError("RESOURCE_EXHAUSTED: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    JaxError(
        "RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate 15.65G. There are 11.08G free."
    ),
    JaxError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.95G of 15.48G hbm."),
]
OTHERWISE = [
    JaxError("INVALID_ARGUMENT: shapes must be equal"),
    JaxError("RESOURCE_EXHAUSTED: Shared memory size limit exceeded: requested 4194304, available: 101376"),
    JaxError("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 21.95M of 16.00M vmem."),
    JaxError("RESOURCE_EXHAUSTED: Received message larger than max (5000000 vs. 4194304)"),
    ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 64064000240 bytes."),
    OSError(28, "No space left on device"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_shortage_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERWISE, ids=str)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


TOO_MUCH = 2**47
"""Floats that no address space of 48 bits holds."""


@pytest.mark.parametrize(
    "ask",
    [
        lambda: jnp.zeros(TOO_MUCH),
        lambda: jax.device_put(np.broadcast_to(np.float32(1), (TOO_MUCH,))),
        lambda: jax.jit(lambda x: jnp.broadcast_to(x, (TOO_MUCH,)).cumsum()[5])(1.0).block_until_ready(),
        lambda: np.ones(TOO_MUCH),
    ],
    ids=["result", "copy", "temporary", "host"],
)
def test_the_real_thing_is_recognised(ask):
    with pytest.raises((JaxError, MemoryError)) as caught:
        ask()
    assert is_out_of_memory(caught.value)


HALVING = """
import resource
from pathlib import Path
import jax, jax.numpy as jnp
from jax import lax
from wrnn_jax.grids.available import host_bytes
from wrnn_jax.grids.liveness import size, working_bytes
from wrnn_jax.grids.memory import compiled_bytes, is_out_of_memory

def member(x):
    return jax.grad(lambda x: lax.scan(lambda h, _: (jnp.sin(h), None), x, length=1000)[0].sum())(x)

def program(members):
    states = jax.ShapeDtypeStruct((members, 10_000), jnp.float32)
    return jax.jit(jax.vmap(member), donate_argnums=0).lower(states).compile()

programs = {members: program(members) for members in (8, 4, 2)}  # Some 40 MB a member.
assert working_bytes(jax.vmap(member), jax.ShapeDtypeStruct((8, 10_000), jnp.float32)) > 300e6
in_use = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (in_use + 120_000_000, resource.RLIM_INFINITY))
assert host_bytes() <= 120_000_000
for members, compiled in programs.items():
    states = jnp.ones((members, 10_000))
    try:
        result = compiled(states)
        print(members, "called")
        print(members, float(result.sum()) > 0)
    except Exception as error:
        print(members, "short" if is_out_of_memory(error) else repr(error), "lost" if states.is_deleted() else "kept")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="where the limit on memory is one: on Linux")
def test_a_process_short_of_memory_goes_on_with_fewer_members():
    """The error comes when a result is read, not from the call; what was donated is lost; half as many then work."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-W", "error", "-c", HALVING]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "8 called", "8 short lost", "4 called", "4 short lost", "2 called", "2 True",
    ]  # fmt: skip
