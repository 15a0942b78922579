"""The compiled unroll reads and writes within its buffers, whoever calls it: what does not fit is refused by itself."""

import contextlib
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from wrnn_jax.kernels import native
from wrnn_jax.kernels.native.build import find_compiler
from wrnn_jax.kernels.native.library import THIS_CPU

ROOT = Path(__file__).parents[1]
C, N, K, D, B, T, F, S = 2, 5, 3, 4, 3, 7, 6, 2
LAYERS = {"kernel": (C, C, K), "encoder": (C, N, D), "bias": (C, N), "readout": (F, C * N), "readout's bias": (F,)}
OPERANDS = {
    native.FORWARD: LAYERS | {"carry": (B, C, N), "xs": (T, B, D)},
    native.BACKWARD: LAYERS
    | {"xs": (T, B, D), "stored": None, "state": (B, C, N), "state's cotangent": (B, C, N)}
    | {"outputs' cotangent": (T, B, F)},
}
RESULTS = {
    native.FORWARD: {"state": (B, C, N), "outputs": (T, B, F), "stored": None},
    native.BACKWARD: {"kernel's gradient": (C, C, K), "encoder's gradient": (C, N, D), "bias's gradient": (C, N)}
    | {"readout's gradient": (F, C * N), "carry's gradient": (B, C, N), "xs' gradient": (T, B, D)},
}
"""A call that fits: the sizes of every buffer; None: of the states that are stored for the way back."""


def call(target, changed=None, dtype=None, **attributes):
    """Call the compiled code itself, with buffers of 1s, of which the named ones have other sizes or another dtype."""
    library = native._library()
    stored = (-(-B // library.wrnn_lanes()), math.ceil(T / S), library.wrnn_state_size(C, N, K))
    changed = changed or {}

    def buffers(table):
        return {name: changed.get(name, sizes or stored) for name, sizes in table[target].items()}

    kind = dict.fromkeys(changed, dtype) if dtype else {}
    operands = [np.ones(sizes, kind.get(name, "float32")) for name, sizes in buffers(OPERANDS).items()]
    results = [jax.ShapeDtypeStruct(sizes, kind.get(name, "float32")) for name, sizes in buffers(RESULTS).items()]
    attributes = {name: np.int64(value) for name, value in ({"activation": 0, "segment": S} | attributes).items()}
    return jax.block_until_ready(jax.ffi.ffi_call(target, results)(*operands, **attributes))


def refused(why=""):
    return pytest.raises(jax.errors.JaxRuntimeError, match=rf"INVALID_ARGUMENT: wrnn_jax\.kernels\.native: {why}")


def fuzz(calls):
    """Random calls of which one buffer does not fit: all are refused, and one that fits is taken in between."""
    rng = np.random.default_rng(0)
    for index in range(calls):
        target = [native.FORWARD, native.BACKWARD][index % 2]
        tables = OPERANDS[target] | RESULTS[target]
        name = rng.choice(list(tables))
        sizes = list(tables[name] or (1, 4, 8))
        axis = rng.integers(len(sizes))
        match rng.integers(5):
            case 0:
                sizes[axis] += rng.integers(1, 9)
            case 1:
                sizes[axis] -= rng.integers(1, sizes[axis] + 1)
            case 2:
                sizes.insert(axis, rng.integers(3))
            case 3:
                del sizes[axis]
            case 4:
                sizes = sizes[::-1]
        fits = sizes == list(tables[name] or ()) or ("outputs" in name and sizes == [T, B, 0])
        with contextlib.nullcontext() if fits else refused():
            call(target, {name: tuple(sizes)})
    print(calls, "calls")


def test_each_misfit_is_named(native_kernels):
    for target in (native.FORWARD, native.BACKWARD):
        call(target)
        for name, sizes in {**OPERANDS[target], **RESULTS[target]}.items():
            wrong = (*(sizes or (1, 1, 1))[:-1], 9)
            with refused():
                call(target, {name: wrong})
    for target, name in [(native.FORWARD, "carry"), (native.BACKWARD, "xs' gradient")]:
        with refused(rf"{name} .* has sizes \(9, 9, 9\), must have \("):
            call(target, {name: (9, 9, 9)})
    with refused(r"bias \(C, N\) is not float32"):
        call(native.FORWARD, {"bias": (C, N)}, "int32")
    for attribute in ({"segment": 0}, {"segment": T + 1}, {"activation": 3}, {"activation": -1}):
        with refused(f"{next(iter(attribute))} must be"):
            call(native.BACKWARD, **attribute)


def test_no_sequences_are_no_work(native_kernels):
    """The gradient in a parameter is then 0."""
    empty = {"xs": (T, 0, D), "stored": (0, math.ceil(T / S), native._library().wrnn_state_size(C, N, K))}
    empty |= dict.fromkeys(("state", "state's cotangent", "carry", "carry's gradient"), (0, C, N))
    empty |= dict.fromkeys(("outputs", "outputs' cotangent"), (T, 0, F)) | {"xs' gradient": (T, 0, D)}
    call(native.FORWARD, empty)
    for gradient in call(native.BACKWARD, empty):
        assert not gradient.any()


@pytest.mark.slow
def test_random_misfits_are_refused(native_kernels):
    """In a process of its own, which would not outlive a stray write."""
    script = "import test_native_memory; test_native_memory.fuzz(2000)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "tests", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2000 calls\n"


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [THIS_CPU, None], ids=["this processor", "any processor"])
def test_under_address_and_undefined_behaviour_sanitizers(tmp_path, cpu):
    """Thousands of calls that fit and that do not, each buffer a block of memory by itself: ``native_sanitized.cc``."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    flags = ["-std=c++17", *([cpu] if cpu else []), "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

    def build(source, program):
        command = [*compiler, *flags, "-I", ROOT, "-isystem", jax.ffi.include_dir(), source, "-o", program]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    empty = tmp_path / "empty.cc"
    empty.write_text("int main() { return 0; }")
    if build(empty, tmp_path / "empty").returncode or subprocess.run([tmp_path / "empty"], check=False).returncode:
        pytest.skip("the C++ compiler has no sanitizers")
    done = build(ROOT / "tests" / "native_sanitized.cc", tmp_path / "sanitized")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([tmp_path / "sanitized", "4000", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("4000 calls")
