"""Numbers of the published models, and the folder of a run, as they were recorded: later code gives the same.

``recorded/numbers.json`` holds, of small runs of all ten models, every row of metrics, a SHA-256 of every parameter,
and the sizes that each experiment gives each model. Where it was recorded with the same versions on the same kind of
CPU, all must be equal to the bit; elsewhere programs round in another way, so numbers must agree within a relative 2e-4
(of a parameter its norm stands for it). ``WRNN_JAX_RECORD=1 python3 -m pytest tests/test_recorded.py -m "slow or not
slow"`` records anew, which is right only where numbers change on purpose.

``recorded/run`` was written when all models had one config with the fields of each; such folders must stay readable, so
it is never written again.
"""

import dataclasses
import hashlib
import json
import os
import platform
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small

from experiments import adding, copy, hds, nscifar10, program, psmnist, smnist
from experiments.runs import open_run
from helpers import run
from wrnn_jax.models import MODELS
from wrnn_jax.training import numerics
from wrnn_jax.training.rundir import _versions
from wrnn_jax.training.stored import read_summary, rows_of

pytestmark = pytest.mark.usefixtures("standard_promotion", "undrawn")

HERE = Path(__file__).parent / "recorded"
NUMBERS = HERE / "numbers.json"
TOLERANCE = 2e-4
PUBLISHED = (
    *("wrnn", "wrnn-mlp", "wrnn-local", "irnn", "irnn-shift", "irnn-shift-sparse", "srnn", "lstm"),
    *("twm-lbc", "twm-sbc"),
)
EXPERIMENTS = {module.EXPERIMENT.name: module for module in (copy, adding, smnist, psmnist, nscifar10, hds)}
STEPS = ["--batch", 4, "--max-steps", 4, "--log-interval", 2, "--stop-below", 0]
COPY = ["--T", 0, "--n-hid", 4, *STEPS]
HDS = ["--d", 8, "--s", 8, "--n-hid", 8, "--curriculum", 2, "--horizon", 4, *STEPS]
DIGITS = ["--dataset", "digits", "--n-hid", 4, "--batch", 512, "--epochs", 1, "--log-interval", 1, "--max-steps", 2]
RUNS = {
    **{f"copy {model}": ["--model", model, *COPY] for model in PUBLISHED},
    "adding grid": ["--T", 10, "--n-ch", 2, "--grid.lr", 1e-3, 1e-2, "--seeds", 2, "--n-hid", 4, *STEPS],
    "hds srnn": HDS,
    "psmnist wrnn": ["--n-ch", 1, *DIGITS],
}
FURTHER = {
    "copy wrnn channels": ["--n-ch", 2, "--speed", 0.5, 1, "--no-use-bias", *COPY],
    "copy wrnn scan": ["--n-ch", 2, "--ksize", 1, "--init", "identity", "--backend", "scan", *COPY],
    "copy wrnn fused": ["--n-ch", 2, "--act", "tanh", "--bias-init", "random", "--backend", "fused", *COPY],
    "copy wrnn parallel": ["--n-ch", 1, "--act", "identity", "--backend", "parallel", *COPY],
    "adding irnn": ["--T", 10, "--model", "irnn", "--n-hid", 4, *STEPS],
    **{f"hds {model}": ["--model", model, *HDS] for model in ("wrnn", "irnn", "lstm", "twm-lbc", "twm-sbc")},
    "psmnist irnn": ["--model", "irnn", "--n-ch", 2, *DIGITS],
}
"""Name, which begins with the experiment -> flags."""


def environment():
    """What decides how a program rounds."""
    cpu = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    features = sorted({line for line in cpu if line.startswith(("flags", "Features", "model name"))})
    digest = hashlib.sha256("\n".join(features).encode()).hexdigest()
    versions = {name: version for name, version in _versions().items() if name != "wrnn_jax"}
    cores = [os.cpu_count(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None]
    flags = {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
    machine = {"machine": platform.machine(), "cpu": digest, "cores": cores, "devices": jax.local_device_count()}
    return {**versions, **machine, **numerics.settings(), **flags}


def parameters(folder):
    """Path -> digest, shape and norm of the parameters in a run's newest checkpoint."""
    newest = max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    state = checkpointer.restore(newest, args=ocp.args.Composite(state=ocp.args.StandardRestore())).state
    checkpointer.close()
    leaves = jax.tree_util.tree_leaves_with_path(state["params"])
    return {
        jax.tree_util.keystr(path): [
            hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest(),
            list(leaf.shape),
            float(np.linalg.norm(leaf)),
        ]
        for path, leaf in leaves
    }


def outcome(folder):
    """The rows and the parameters of a run, or of each of a grid's members."""
    members = sorted(path.parent for path in folder.glob("members/*/metrics.jsonl"))
    if members:
        return {member.name: outcome(member) for member in members}
    return {"rows": [small.untimed(row) for row in rows_of(folder).rows], "params": parameters(folder)}


def model_sections():
    """Experiment -> model -> the section of its config by default."""
    found, configs = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "run", lambda experiment, config, command: configs.append(config) or 0)
        for name, module in EXPERIMENTS.items():
            found[name] = {}
            for model in PUBLISHED:
                assert run(module.main, "--model", model) == 0
                found[name][model] = dataclasses.asdict(configs[-1].model)
            assert run(module.main) == 0
            found[name][""] = configs[-1].model.model
    return found


def compared(part, found):
    """What was recorded as ``part``, now if so asked, and whether ``found`` must be equal to it to the bit."""
    stored = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    if os.environ.get("WRNN_JAX_RECORD") == "1":
        stored |= {part: found, "environment": environment()}
        NUMBERS.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    return stored[part], stored["environment"] == environment()


def trained(runs, home):
    """Name -> what comes of the run."""
    for name, flags in runs.items():
        assert run(EXPERIMENTS[name.split()[0]].main, *flags, "--logdir", home / name) == 0, name
    return {name: outcome(home / name) for name in runs}


def require_equal(now, before, exactly, where=""):
    """Within 2e-4 where not ``exactly``; names the place that differs. Of digests only equality says anything."""
    if isinstance(before, dict):
        assert now.keys() == before.keys(), where
        for key in before:
            require_equal(now[key], before[key], exactly, f"{where} {key}")
    elif isinstance(before, list):
        assert len(now) == len(before), where
        for index, (one, other) in enumerate(zip(now, before, strict=True)):
            require_equal(one, other, exactly, f"{where} {index}")
    elif isinstance(before, float) and not exactly:
        np.testing.assert_allclose(now, before, TOLERANCE, 1e-6, err_msg=where)
    elif not (isinstance(before, str) and len(before) == 64 and not exactly):
        assert now == before, where


def test_runs_of_all_models_give_the_recorded_numbers(tmp_path):
    runs = trained(RUNS, tmp_path)
    require_equal(runs, *compared("runs", runs))


@pytest.mark.slow
def test_further_runs_give_the_recorded_numbers(tmp_path):
    runs = trained(FURTHER, tmp_path)
    require_equal(runs, *compared("further runs", runs))


def test_experiments_give_each_model_the_recorded_sizes():
    """A model's own config may lack what it does not have, and may have further options, which are as by default."""
    neutral = (None, False, True, "zeros")
    now = model_sections()
    for experiment, sections in compared("sections", now)[0].items():
        assert now[experiment][""] == sections.pop(""), experiment
        for model, before in sections.items():
            section = now[experiment][model]
            for field, value in before.items():
                where = f"{experiment} --model {model}: {field}"
                assert section[field] == value if field in section else value in neutral, where


def test_the_recorded_models_are_those_that_have_names():
    assert set(PUBLISHED) <= set(MODELS)


@pytest.fixture(scope="module")
def undisturbed():
    """Name -> what was recorded of the run."""
    stored = json.loads(NUMBERS.read_text())
    return stored["runs"] | stored["further runs"]


@pytest.fixture
def old(tmp_path):
    """The folders that were written when all models had one config, to write in."""
    shutil.copytree(HERE / "run", tmp_path / "run")
    for about in (tmp_path / "run").glob("*/config.json"):
        stored = json.loads(about.read_text())
        del stored["jax"]  # Of the settings under which it was written, which other tests are about.
        about.write_text(json.dumps(stored))
    return tmp_path / "run"


def test_an_old_run_is_read_evaluated_and_resumed(old, undisturbed, capsys):
    folder = old / "wrnn"
    rows, whole = rows_of(folder).rows, undisturbed["copy wrnn"]["rows"]
    assert [row["step"] for row in rows] == [2]
    opened = open_run(folder)
    assert (opened.short_name, opened.config.model.n_ch, opened.config.model.encoder_init) == ("wrnn, T0", 6, "sparse")
    assert read_summary(folder)["steps"] == 2

    flags = ["--model", "wrnn", *COPY, "--logdir", folder]
    assert run(copy.main, *flags, "--eval-only") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    for metric in ("test_loss", "authors_loss", "recall"):
        np.testing.assert_allclose(printed[metric], rows[-1][metric], TOLERANCE, err_msg=metric)
    assert run(copy.main, *flags, "--resume") == 0
    require_equal([small.untimed(row) for row in rows_of(folder).rows], whole, exactly=False)


def test_old_configs_of_models_that_have_fewer_options_are_read_and_resumed(old, undisturbed):
    for model, experiment, flags in (("lstm", copy, COPY), ("twm-lbc", hds, HDS)):
        folder = old / model
        opened = open_run(folder)
        assert opened.config.model.model == model
        assert opened.experiment.name == experiment.EXPERIMENT.name
        assert run(experiment.main, "--model", model, *flags, "--resume", "--logdir", folder) == 0, model
        whole = undisturbed[f"{opened.experiment.name} {model}"]["rows"]
        require_equal([small.untimed(row) for row in rows_of(folder).rows], whole, exactly=False)
