import base64
import html.parser
import json
import re
import statistics

import matplotlib.figure
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrnn_jax.analysis import plots
from wrnn_jax.cells import __all__ as cell_names
from wrnn_jax.models import MODELS
from wrnn_jax.report import build_report, numbers, published
from wrnn_jax.report import groups as grouping
from wrnn_jax.report.groups import STATES, choose, grouped, misfits
from wrnn_jax.report.papertables import PAPER_TABLES
from wrnn_jax.report.pictures import curves, parameters
from wrnn_jax.report.runs import Run, find_runs
from wrnn_jax.report.tables import NO_RUN, comparison, fill
from wrnn_jax.training import fit
from wrnn_jax.validation import InvalidValue

TABLES = {table.slug: table for table in PAPER_TABLES}
WRNN = {"model": "wrnn", "n_hid": 100, "n_ch": 6, "ksize": 3, "act": "relu", "init": "shift", "encoder_init": "sparse"}
COPY = {"experiment": "copy", "T": 30, "variant": "paper", **WRNN, "lr": 1e-3, "grad_clip": 1.0, "seed": 0}
COPY |= {"steps": 1000, "max_steps": 1000, "status": "complete", "authors_loss": 3.25e-5, "recall": 1.0}
LINES = [(table, line) for table in PAPER_TABLES for line in table.lines if line.wants is not None]


def run_of(line, name="run", **changes):
    """A run that has just what a line wants."""
    wants = {key: wanted[0] if isinstance(wanted, tuple) else wanted for key, wanted in line.wants.items()}
    wants = {key: 700 if wanted is ... else wanted for key, wanted in wants.items()}
    measured = {"test_mse": 0.125, "test_acc": 0.875, "authors_loss": 0.125, "recall": 0.5, "params": 1234}
    measured |= {"angle_error": 0.25}
    length = {"steps": line.full, "max_steps": line.full, "epochs_done": line.full}
    return Run(name, {**wants, **measured, **length, "status": "complete", "seed": 0, **changes}, {})


def cells(table, runs, model, T=None):
    """Header -> text of a line."""
    return row_of(table, runs, model=model, **({} if T is None else {"T": str(T)}))


def row_of(table, runs, **named):
    """Header -> text of the first row whose cells have these texts."""
    result = comparison(fill(table, runs))
    rows = [dict(zip(result.header, (cell.text for cell in row), strict=True)) for row in result.rows]
    return next(row for row in rows if named.items() <= row.items())


def row_of_line(table, runs, line):
    """Header -> text of a line, known by its first cells."""
    return row_of(table, runs, **dict(zip([table.names, *table.facts], [line.name, *line.facts], strict=True)))


def ours(table, runs):
    return [cell.text for row in comparison(fill(table, runs)).rows for cell in row if cell.kind == "ours"]


def write_run(folder, rows=(), config=None, **summary):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# Lines and what fits them


def test_a_line_shows_the_run_that_has_all_it_wants_and_no_other_line_does():
    for table, line in LINES:
        run = run_of(line)
        filling = fill(table, [run])
        assert [filled.line for filled in filling.lines if filled.shown] == [line]
        assert not filling.others


def test_a_run_that_lacks_or_differs_in_one_thing_fills_no_cell_of_the_line():
    for table, line in LINES:
        for key in line.wants.keys() - {"experiment"}:
            lacking = run_of(line)
            del lacking.summary[key]
            assert f"{key} unknown" in misfits(lacking, line.wants, ()), line
            if line.wants[key] is not ...:
                other = run_of(line, **{key: "something else"})
                assert line not in [filled.line for filled in fill(table, [other]).lines if filled.shown]
        for part in ("encoder", "recurrence"):
            assert f"{part} frozen" in fill(table, [run_of(line, **{f"freeze_{part}": True})]).others[0].why, line


def test_waves_of_speed_1_are_one_setting_however_it_is_said():
    table = TABLES["copy-ablation"]
    runs = [Run(f"r{seed}", {**COPY, "seed": seed}, {}) for seed in range(4)]
    for run, speed in zip(runs[1:], (None, 1, [1.0] * 6), strict=True):
        run.summary["speed"] = speed
    (group,) = grouped(runs)
    assert fill(table, runs).shown == [group]
    assert len(group.runs) == 4
    for speed, said in (("log", "log"), (0.5, "0.5"), ([1.0, 0.5], "[1.0, 0.5]")):
        other = Run("other", {**COPY, "speed": speed}, {})
        assert fill(table, [other]).others[0].why == f"waves of speed {said} at the start"
        assert len(grouped([*runs, other])) == 2


def test_without_runs_every_line_of_ours_says_so():
    for table in PAPER_TABLES:
        rows = comparison(fill(table, [])).rows
        said = sum(any(cell.text == NO_RUN for cell in row) for row in rows)
        assert said == sum(line.wants is not None for line in table.lines)
        assert not ours(table, [])


def test_what_others_published_has_the_papers_number_alone():
    row = cells(TABLES["nscifar10"], [], "LEM")
    assert row["test accuracy (%), paper"] == "60.5"
    assert row["test accuracy (%), ours"] == "–"
    assert row["notes"] == "published by others; not implemented here"
    assert cells(TABLES["nscifar10"], [], "LSTM")["notes"] == "published by others; here --model lstm"


def test_what_is_called_not_implemented_is_not():
    def letters(name):
        return re.sub(r"[^a-z]", "", name.lower())

    here = {letters(name) for name in [*MODELS, *cell_names]}
    for table in PAPER_TABLES:
        rows = comparison(fill(table, [])).rows
        for row in rows:
            if "not implemented here" in row[-1].text:
                assert letters(row[0].text) not in here, row[0].text


def test_parameters_stand_with_and_without_biases_beside_the_printed():
    """What the papers print is without: 435k and 336k on nsCIFAR10; c·n·(D + O) + c²·f, and n·(n + D + O)."""
    for name, n_hid, n_ch, printed, weights in (
        ("wRNN (16c)", 256, 16, "435k", 16 * 256 * (96 + 10) + 16 * 16 * 3),
        ("iRNN", 529, 1, "336k", 529 * (529 + 96 + 10)),
    ):
        (line,) = (line for line in TABLES["nscifar10"].lines if line.name == name)
        params = weights + n_hid * n_ch + (n_ch if n_ch > 1 else n_hid) + 10
        row = row_of_line(TABLES["nscifar10"], [run_of(line, params=params)], line)
        assert row["parameters, paper"] == printed
        assert row["parameters, ours"] == f"{params:,} ({weights:,})"
        other = row_of_line(TABLES["nscifar10"], [run_of(line, params=params + 1)], line)
        assert other["parameters, ours"] == f"{params + 1:,}"  # Not a network of this library.


def test_the_figure_of_sizes_has_the_runs_of_its_table_and_what_is_printed_of_their_kinds(monkeypatch):
    drawn = []

    def parameters_figure(tasks):
        drawn.append(tasks)
        return matplotlib.figure.Figure()

    monkeypatch.setattr(plots, "parameters_figure", parameters_figure)
    table = TABLES["psmnist-sizes"]
    lines = {(line.name, line.facts): line for line in table.lines}
    small, usual = lines["wRNN (16c)", ("36",)], lines["wRNN (16c)", ("256",)]
    runs = [run_of(small, "a", epochs_done=1.0), run_of(small, "b", epochs_done=1.0, seed=1, test_acc=0.625)]
    assert not list(parameters(fill(table, [])))
    (image,) = parameters(fill(table, [*runs, run_of(usual, "c")]))
    assert image.file == "psmnist-sizes.png"
    points = [("n = 36, short run", 1234, 75.0), ("n = 256", 1234, 87.5)]
    assert drawn == [{"psMNIST": {"wRNN (16c)": (points, [("n = 256", 47_000, pytest.approx(96.7))])}}]


@pytest.mark.parametrize("model", ["irnn", "irnn-shift", "srnn"])
def test_an_ablation_is_known_by_what_it_starts_from_not_by_its_name(model):
    elman = {**COPY, "model": model, "n_ch": 1, "ksize": None, "init": "shift", "encoder_init": "sparse"}
    (shown,) = [filled for filled in fill(TABLES["copy-ablation"], [Run("r", elman, {})]).lines if filled.shown]
    assert (shown.line.name, shown.line.figure) == ("iRNN + Σ-init + V-init", "T = 30")


def test_the_config_tells_what_the_summary_does_not():
    summary = {key: value for key, value in COPY.items() if key != "encoder_init"}
    table = TABLES["copy-ablation"]
    assert fill(table, [Run("r", summary, {})]).others[0].why == "encoder_init unknown"
    assert ours(table, [Run("r", summary, {"encoder_init": "sparse"})]) == ["3.2e-05"]


# Numbers


def test_a_run_of_before_there_was_an_option_joins_those_that_do_without():
    before, now = {**COPY, "authors_loss": 1e-6}, {**COPY, "authors_loss": 3e-6, "seed": 1}
    divided = {**COPY, "authors_loss": 1.0, "loss_divisor": 128.0, "max_steps": 1, "steps": 1}
    runs = [Run("a", before, {}), Run("b", now, {"loss_divisor": None}), Run("c", divided, {})]
    row = cells(TABLES["copy-ablation"], runs, "wRNN", 30)
    assert (row["seeds"], row["loss ÷ 50, ours"]) == ("2", "2.0e-06 ± 1e-06")


def test_ours_is_the_mean_and_sd_over_seeds_and_the_ratio_is_to_the_paper():
    losses = [1e-6, 2e-6, 6e-6]
    runs = [Run(f"r{seed}", {**COPY, "seed": seed, "authors_loss": loss}, {}) for seed, loss in enumerate(losses)]
    row = cells(TABLES["copy-ablation"], runs, "wRNN", 30)
    assert row["loss ÷ 50, paper"] == "8e-11"
    assert row["loss ÷ 50, ours"] == "3.0e-06 ± 3e-06"
    assert row["ours ÷ paper"] == "×3.8e+04"  # 3e-6 / 8e-11 = 37,500
    assert row["seeds"] == "3"
    assert row["paper's setting"] == "lr 0.001, no clip, loss / 128"
    assert row["our setting"] == "lr 0.001, clip 1"


def test_one_seed_has_no_deviation():
    assert cells(TABLES["copy-ablation"], [Run("r", COPY, {})], "wRNN", 30)["loss ÷ 50, ours"] == "3.2e-05"


def test_accuracies_are_percentages_and_differ_by_points():
    line = next(line for line in TABLES["psmnist"].lines if line.name == "wRNN (16c)")
    runs = [run_of(line, f"r{seed}", seed=seed, test_acc=acc) for seed, acc in enumerate([0.95, 0.96])]
    row = cells(TABLES["psmnist"], runs, line.name)
    assert row["test accuracy (%), paper"] == "96.7"
    assert row["test accuracy (%), ours"] == "95.50 ± 0.71"
    assert row["ours − paper (points)"] == "−1.20"
    assert (row["parameters, paper"], row["parameters, ours"]) == ("47k", "1,234")


@pytest.mark.parametrize(
    ("steps", "text", "difference"),
    [([200, 400], "300 ± 141", "0"), ([600, None], "600 (1 of 2 seeds)", "–"), ([None, None], "not solved", "–")],
)
def test_solved_counts_only_the_seeds_that_did(steps, text, difference):
    line = next(line for line in TABLES["adding"].lines if (line.name, line.figure) == ("wRNN", "T = 100"))
    runs = [run_of(line, f"r{seed}", seed=seed, solved_step=step) for seed, step in enumerate(steps)]
    row = cells(TABLES["adding"], runs, "wRNN", 100)
    assert row["solved after step, paper"] == "300"
    assert row["solved after step, ours"] == text
    assert row["steps: ours − paper"] == difference


@given(st.lists(st.floats(1e-12, 1e3), min_size=2, max_size=6))
def test_a_loss_is_written_as_exactly_as_it_says(losses):
    mean, spread = (float(part) for part in numbers.loss(losses).split(" ± "))
    assert mean == pytest.approx(statistics.mean(losses), rel=0.051)
    assert spread == pytest.approx(statistics.stdev(losses), rel=0.51, abs=1e-20)


@given(st.floats(1e-12, 1e6))
def test_a_ratio_has_two_digits(value):
    assert float(numbers.ratio(value).removeprefix("×")) == pytest.approx(value, rel=0.051)


def test_shorter_than_the_paper_is_said_of_one_step_less():
    for table, line in LINES:
        whole = row_of_line(table, [run_of(line)], line)
        marked = row_of_line(table, [run_of(line, **{table.length: line.full - 1})], line)
        said = "allowed fewer than" if table.length == "max_steps" else "shorter than"
        assert "the paper's" not in whole["notes"], line
        assert f"{said} the paper's {line.full:,}" in marked["notes"], line


def test_the_papers_lengths():
    full = {(table.slug, line.name): line.full for table in PAPER_TABLES for line in table.lines if line.wants}
    assert full["psmnist", "iRNN"] == full["nscifar10", "iRNN"] == 250
    assert full["smnist", "iRNN"] == full["psmnist", "wRNN (16c)"] == full["nscifar10", "wRNN (16c)"] == 120
    assert full["adding", "iRNN"] == full["copy-ablation", "wRNN"] == full["copy-480", "iRNN, n = 625"] == 60_000


def test_published_tables_have_a_value_for_every_length():
    assert all(len(losses) == len(published.ABLATION_T) for losses in published.TABLE_4.values())
    assert all(len(row.mse) == len(row.solved) == len(published.ADDING_T) for row in published.TABLE_1.values())
    assert {len(values) for row in published.COPY_BEST.values() for values in row.values()} == {len(published.COPY_T)}
    # Table 2 is sorted by its psMNIST column, Table 3 by its only one: a slip would break the order.
    for rows, task in ((published.TABLE_2, "psmnist"), (published.TABLE_3, "nscifar10")):
        accuracies = [row.accuracy[task] for row in rows]
        assert accuracies == sorted(accuracies)


# Which runs are shown

scores = st.floats(1e-9, 1.0)
copy_runs = st.lists(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2),
            "steps": st.sampled_from([100, 1000, 60_000]),
            "max_steps": st.sampled_from([1000, 60_000]),
            "lr": st.sampled_from([1e-3, 1e-4]),
            "status": st.sampled_from(["complete", "solved", "interrupted", "diverged", "mislaid"]),
            "T": st.sampled_from([30, 80, 480]),
            "init": st.sampled_from(["shift", "random", "identity"]),
        }
    ),
    max_size=12,
)


def named(settings, losses):
    runs = zip(settings, losses, strict=True)
    return [
        Run(f"r{index:02}", {**COPY, **setting, "authors_loss": loss}, {}) for index, (setting, loss) in enumerate(runs)
    ]


@given(copy_runs, st.data())
def test_no_choice_depends_on_a_result(settings, data):
    first, second = (named(settings, data.draw(st.tuples(*[scores] * len(settings)))) for _ in range(2))
    for table in (TABLES["copy-ablation"], TABLES["copy-480"]):
        names = [[[run.name for run in group.runs] for group in fill(table, runs).shown] for runs in (first, second)]
        assert names[0] == names[1]


@given(copy_runs)
def test_every_run_is_shown_once_or_listed_once(settings):
    runs = named(settings, [0.5] * len(settings))
    fillings = [fill(table, runs) for table in PAPER_TABLES]
    shown = [run.name for filling in fillings for group in filling.shown for run in group.runs]
    others = [other.run.name for filling in fillings for other in filling.others]
    assert sorted(shown + others) == [run.name for run in runs]


@given(copy_runs)
def test_a_group_is_one_setting_one_end_and_different_seeds(settings):
    runs = [run for run in named(settings, [0.5] * len(settings)) if run.summary["status"] in STATES]
    groups = grouped(runs)
    assert sorted(run.name for group in groups for run in group.runs) == [run.name for run in runs]
    for group in groups:
        seeds = group.values("seed")
        assert len(set(seeds)) == len(seeds)
        assert {STATES[status] for status in group.values("status")} == {group.state}
        for key in ("lr", "max_steps", "T", "init"):
            assert len(set(group.values(key))) == 1


def test_fields_that_a_model_never_had_and_neutral_ones_tell_no_runs_apart():
    """Summaries of runs that were trained when all models had the fields of each, beside those of today."""

    def of(**more):
        now = {"experiment": "hds", "model": "twm-lbc", "n_hid": 8, "max_steps": 10}
        return grouping.settings(Run("run", {**now, **more}, {}))

    assert of(use_bias=False, bias_init="zeros", n_ch=None, freeze_encoder=False) == of(n_layers=1, dropout=0.0)
    assert of(model="wrnn") != of(model="wrnn", n_layers=2)
    assert of(model="wrnn", use_bias=True) != of(model="wrnn", use_bias=False)


def choice(*summaries):
    runs = [Run(f"r{index}", {**COPY, **summary}, {}) for index, summary in enumerate(summaries)]
    return [run.name for run in choose(grouped(runs), "steps").runs]


def test_finished_then_longest_then_most_seeds_then_last_by_name():
    short, long = {"steps": 10, "max_steps": 10}, {"steps": 20, "max_steps": 20}
    assert choice({**long, "status": "interrupted"}, short) == ["r1"]
    assert choice(long, short) == ["r0"]
    assert choice({**long, "lr": 0.1}, {**long, "seed": 1, "lr": 0.1}, long) == ["r0", "r1"]
    assert choice({**long, "lr": 0.1}, long) == ["r1"]
    assert choose([], "steps") is None


def test_a_diverged_seed_is_counted_but_not_averaged():
    end = {"status": "diverged", "seed": 1, "authors_loss": 1.0}
    runs = [Run("a", COPY, {}), Run("b", {**COPY, **end}, {})]
    filling = fill(TABLES["copy-ablation"], runs)
    row = cells(TABLES["copy-ablation"], runs, "wRNN", 30)
    assert row["loss ÷ 50, ours"] == "3.2e-05"
    assert row["seeds"] == "1"
    assert "1 more of these settings diverged" in row["notes"]
    assert [(other.run.name, other.why) for other in filling.others] == [("b", "diverged")]


def test_an_interrupted_run_alone_is_shown_as_such():
    row = cells(TABLES["copy-ablation"], [Run("a", {**COPY, "status": "interrupted"}, {})], "wRNN", 30)
    assert row["loss ÷ 50, ours"] == "3.2e-05 (interrupted)"


def test_a_seed_that_was_run_twice_counts_once():
    runs = [Run(name, {**COPY, "seed": seed}, {}) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert cells(TABLES["copy-ablation"], runs, "wRNN", 30)["seeds"] == "2"


def test_what_makes_a_run_special_is_noted():
    notes = {"variant": "authors", "dataset_note": "pixels re-encoded", "status": "solved"}
    row = cells(TABLES["copy-ablation"], [Run("a", {**COPY, **notes}, {})], "wRNN", 30)
    assert "1 of 1 stopped early: solved" in row["notes"]
    assert "batch as the authors' program makes it; pixels re-encoded" in row["notes"]


def test_a_status_is_one_that_training_gives():
    assert set(STATES) == {fit.SOLVED, fit.BELOW, fit.STALLED, fit.COMPLETE, fit.DIVERGED, fit.INTERRUPTED}


# Finding runs


def test_runs_are_found_at_any_depth_alone_and_unfinished(tmp_path):
    write_run(tmp_path / "a/b/run", **COPY)
    write_run(tmp_path / "a/b/run/checkpoints/1000", experiment="not a run")
    write_run(tmp_path / ".hidden/run", experiment="not a run")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/copy.json").write_text(json.dumps(COPY))
    (tmp_path / "results/bench.json").write_text('{"median": 1.0}')
    (tmp_path / "results/cut.json").write_text('{"experiment": "copy", ')
    write_run(tmp_path / "sweep/members/m", **COPY)
    (tmp_path / "sweep/grid.json").write_text("{}")
    (tmp_path / "going").mkdir()
    (tmp_path / "going/config.json").write_text('{"config": {}}')
    (tmp_path / "going/metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"ste')
    found = find_runs(tmp_path)
    assert [run.name for run in found.runs] == ["a/b/run", "results/copy.json", "sweep/members/m"]
    assert [(run.name, run.step) for run in found.unfinished] == [("going", 20)]
    assert found.skipped == ("results/bench.json", "results/cut.json")
    assert find_runs(tmp_path / "a/b/run").runs[0].summary == COPY


@pytest.mark.parametrize(
    ("file", "text", "allowed"),
    [
        ("summary.json", '{"experiment": "copy", ', "a JSON object, whole"),
        ("summary.json", "[]", "a JSON object"),
        ("summary.json", '{"model": "wrnn"}', 'needs an "experiment"'),
        ("summary.json", '{"experiment": ["copy"]}', 'needs an "experiment"'),
        ("summary.json", '{"experiment": "copy", "authors_loss": "low"}', "authors_loss = 'low' is no number"),
        ("summary.json", '{"experiment": "hds", "angle_error": "–"}', "angle_error = '–' is no number"),
        ("summary.json", '{"experiment": "hds", "weight_decay": "0.1"}', "weight_decay = '0.1' is no number"),
        ("config.json", "{", "a JSON object, whole"),
        ("config.json", '{"config": {"train": 3}}', "sections of fields"),
    ],
)
def test_a_broken_run_is_named_and_nothing_is_written(tmp_path, file, text, allowed):
    write_run(tmp_path / "runs/good", **COPY)
    write_run(tmp_path / "runs/bad", config={}, experiment="copy")
    (tmp_path / "runs/bad" / file).write_text(text)
    with pytest.raises(InvalidValue, match=re.escape(allowed)) as error:
        build_report(tmp_path / "runs", tmp_path / "out")
    assert (error.value.field, error.value.value) == ("runs", str(tmp_path / "runs/bad" / file))
    assert not (tmp_path / "out").exists()


def test_no_folder_and_no_run_are_refused(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidValue, match="runs ="):
            find_runs(path)


def test_a_number_that_is_not_finite_fills_no_cell(tmp_path):
    write_run(tmp_path / "nan", **{**COPY, "authors_loss": float("nan")})
    (run,) = find_runs(tmp_path).runs
    assert fill(TABLES["copy-ablation"], [run]).others[0].why == "no finite authors_loss"


# Pictures


def test_curves_are_of_the_runs_that_are_shown(tmp_path, monkeypatch):
    for seed in range(2):
        rows = [{"step": 10 * seed + 10, "test_loss": 0.1}]
        write_run(tmp_path / f"s{seed}", rows, **{**COPY, "seed": seed, "memoryless_loss": 0.4})
    write_run(tmp_path / "short", [{"step": 1}], **{**COPY, "steps": 5, "max_steps": 5})
    drawn = []

    def training_curves(*arguments, **options):
        drawn.append((*arguments, options))
        return matplotlib.figure.Figure()

    monkeypatch.setattr(plots, "training_curves", training_curves)
    (image,) = curves(fill(TABLES["copy-ablation"], find_runs(tmp_path).runs))
    ((runs, panels, options),) = drawn
    assert image.file == "copy-ablation-T30-curves.png"
    assert runs == {"wRNN": [[{"step": 10, "test_loss": 0.1}], [{"step": 20, "test_loss": 0.1}]]}
    assert panels == plots.PANELS["copy"]
    assert options["baselines"] == {"test_loss": 0.4}


# The report as files


class Page(html.parser.HTMLParser):
    """Checks that what opens closes in order; gathers cells, links and images."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.ours, self.links, self.images, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [attrs[name] for name in ("href", "src") if name in attrs]
        if tag == "img":
            self.images.append(attrs)
        if tag not in self.VOID:
            self.open.append((tag, attrs))
        if attrs.get("class") == "ours":
            self.ours.append("")

    def handle_startendtag(self, tag, attrs):
        assert tag in self.VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][1].get("class") == "ours":
            self.ours[-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on two seeds with curves and a picture, a run of another length, one unfinished, names with marks."""
    root = tmp_path_factory.mktemp("report")
    for seed in range(2):
        rows = [{"step": 100 * i, "test_loss": 0.1 / i, "recall": 0.5} for i in range(1, 4)]
        write_run(root / f"runs/<b>|*s_{seed}*", rows, **{**COPY, "seed": seed})
    write_run(root / "runs/T5", **{**COPY, "T": 5})
    figures = root / "runs/<b>|*s_0*/figures"
    figures.mkdir()
    matplotlib.figure.Figure((1, 1)).savefig(figures / "waves.png")
    whole = (figures / "waves.png").read_bytes()
    flipped = bytes([*whole[:60], whole[60] ^ 1, *whole[61:]])
    for name, content in {"none": b"not a picture", "cut": whole[:-1], "half": whole[:70], "flipped": flipped}.items():
        (figures / f"{name}.png").write_bytes(content)
    (root / "runs/going").mkdir()
    (root / "runs/going/config.json").write_text('{"config": {}}')
    (root / "out").mkdir()
    (root / "out/mine.txt").write_text("keep")
    return root, build_report(root / "runs", root / "out")


def test_what_was_written_is_said_and_other_files_stay(report):
    root, written = report
    assert (written.runs, written.unfinished) == (3, 1)
    assert {file.name for file in written.figures} == {"copy-ablation-T30-curves.png", "copy-ablation-waves.png"}
    files = {path.relative_to(root / "out").as_posix() for path in (root / "out").rglob("*") if path.is_file()}
    pictures = {f"figures/{file.name}" for file in written.figures}
    assert files == {"mine.txt", "report.md", "report.html"} | pictures
    assert (root / "out/mine.txt").read_text() == "keep"


def test_the_page_is_well_formed_and_stands_alone(report):
    _, written = report
    page = Page(written.html.read_text(encoding="utf-8"))
    assert not page.open
    assert "script" not in page.tags
    assert "b" not in page.tags  # what a folder is called is not markup
    anchors = re.findall(r'<section id="([^"]+)"', written.html.read_text(encoding="utf-8"))
    assert len(set(anchors)) == len(anchors)
    assert all(link.startswith("data:image/png;base64,") or link.removeprefix("#") in anchors for link in page.links)
    assert all(image["alt"] for image in page.images)


def test_the_page_holds_the_pictures_themselves(report):
    _, written = report
    page = Page(written.html.read_text(encoding="utf-8"))
    held = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.images]
    assert held == [file.read_bytes() for file in written.figures]


def test_markdown_tables_are_rectangular_and_pictures_are_there(report):
    _, written = report
    text = written.markdown.read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1
    links = re.findall(r"\]\((.*?)\)", text)
    assert links == [f"figures/{file.name}" for file in written.figures]
    assert r"\<b\>\|\*s\_0\*" in text


def test_both_forms_have_the_same_numbers_of_ours(report):
    _, written = report
    page = Page(written.html.read_text(encoding="utf-8"))
    rows = [line for line in written.markdown.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert page.ours == [text for row in rows for text in re.findall(r"\*\*(.+?)\*\*", row)] == ["3.2e-05 ± 0"]


def test_a_report_is_the_same_when_it_is_built_again(report):
    root, written = report
    again = build_report(root / "runs", root / "again")
    assert again.markdown.read_bytes() == written.markdown.read_bytes()
    assert again.html.read_bytes() == written.html.read_bytes()


def test_every_number_of_ours_follows_its_summary(tmp_path):
    for loss, text in ((1.5e-4, "1.5e-04"), (2.5e-7, "2.5e-07")):
        folder = tmp_path / text
        write_run(folder / "runs/one", **{**COPY, "authors_loss": loss})
        written = build_report(folder / "runs", folder / "out")
        assert Page(written.html.read_text(encoding="utf-8")).ours == [text]
        assert f"| {loss:.4g} |" in written.markdown.read_text(encoding="utf-8")  # in the list of runs shown


def test_where_it_cannot_be_written_is_said(tmp_path):
    write_run(tmp_path / "runs/one", **COPY)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InvalidValue, match="a folder that can be written") as error:
        build_report(tmp_path / "runs", tmp_path / "out")
    assert error.value.field == "out"
    assert (tmp_path / "out").read_text() == "a file"
