"""What holds for every test: strict arithmetic, two CPU devices, repeatable random examples."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import hypothesis
import jax
import jax.numpy as jnp
import matplotlib.pyplot
import numpy as np
import pytest

# Ctrl-C is pressed in processes of tests: those of a job in the background would ignore it, as a script's shell has it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Silent promotion hides mistakes: a float64 constant, or a bias that broadcasts along the wrong axis.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# On the CPU, whatever else there is, unless asked otherwise: several test processes would share one GPU's memory.
jax.config.update("jax_platforms", os.environ.setdefault("JAX_PLATFORMS", "cpu"))
# Nearly all of the time goes into compiling programs that then run for milliseconds. Programs as users run them,
# fully optimised, are those of the slow tests' processes.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compile_quickly(*flags):
    """Flags of XLA for this process alone: older emitters, and code in one piece, take a third of the time.

    XLA reads its flags once, and ends the process over one that it does not know any more: another process tries.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", " ".join([os.environ.get("XLA_FLAGS", ""), *flags]))
        reading = "from jaxlib import xla_client; xla_client.CompileOptions()"
        if subprocess.run([sys.executable, "-c", reading], capture_output=True).returncode == 0:
            from jaxlib import xla_client

            xla_client.CompileOptions()


compile_quickly("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def pytest_configure(config):
    """Programs are compiled once: pytest's cache folder keeps them for its other processes, those that tests start,
    and later runs. Never needed: where it cannot be written, or holds half an entry, they are compiled anew."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            folder = config.cache.mkdir("compiled")
            if sum(file.stat().st_size for file in folder.iterdir()) > 2**30:
                shutil.rmtree(folder)
        except (AttributeError, OSError):
            folder = tempfile.mkdtemp(prefix="wrnn-jax-cache-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])


# Nothing of what the user has there takes part, and no test compiles the native kernels unasked: see native_kernels.
os.environ["WRNN_JAX_NATIVE"] = "0"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="wrnn-jax-home-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# Must come before anything asks for a device; with two of them, sharding over devices can be tested on any machine.
jax.config.update("jax_num_cpu_devices", 2)

# No deadline (the first call of a shape compiles), and the same examples in every run.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, max_examples=15)
hypothesis.settings.load_profile("repeatable")


LONGEST = (
    *(
        "recorded",
        "sweep",
        "experiment",
        "programs",
        "grid_program",
        "grid",
        "crashes",
        "damage",
        "hosts",
        "hds",
        "survival",
    ),
    *("processes", "grid_processes", "bench"),
)
"""Modules of whole runs: they begin, so that no process has one before it when the others have ended."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


@pytest.fixture(scope="session")
def random_params():
    """``random_params(cell, input_size)``: normal numbers in the shapes of its parameters, so that none is zero."""

    def draw(cell, input_size, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        shapes = jax.eval_shape(lambda key: cell.init(key, input_size), jax.random.key(0))
        return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), shapes)

    return draw


@pytest.fixture(scope="session")
def native_cache(tmp_path_factory):
    """A cache folder with the native kernels, compiled once for all of the tests' processes."""
    from wrnn_jax.kernels.native import build

    if build.find_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    home = tmp_path_factory.getbasetemp()
    home = home.parent if "PYTEST_XDIST_WORKER" in os.environ else home
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "native"))
        patch.delenv("WRNN_JAX_NATIVE")
        assert build.build_once(print)
    return home / "native"


@pytest.fixture(scope="module")
def native_kernels(native_cache):
    """For modules that use the native kernels: they are there, also for the processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(native_cache))
        patch.delenv("WRNN_JAX_NATIVE")
        yield


@pytest.fixture(scope="module")
def standard_promotion():
    """For modules that train: Optax itself mixes integers and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def undrawn(monkeypatch, request):
    """For modules that run programs: what a test runs draws no figures, unless it is marked ``drawn``."""
    if "drawn" not in request.keywords:
        from small import draw_nothing  # Not above: JAX is to be set up before the programs are imported.

        draw_nothing(monkeypatch)


@pytest.fixture
def no_open_figures():
    """For modules that draw: no figure is left with pyplot."""
    yield
    assert matplotlib.pyplot.get_fignums() == []
