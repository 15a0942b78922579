"""The report: runs in, Markdown and HTML out."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from wrnn_jax.files import write_atomically
from wrnn_jax.report.document import Block, Bullets, Cell, Document, Image, Paragraph, Section, Table
from wrnn_jax.report.html import to_html
from wrnn_jax.report.listing import other_runs, runs_of_no_table, runs_shown, unfinished_runs
from wrnn_jax.report.markdown import table_to_markdown, to_markdown
from wrnn_jax.report.othermodels import other_models
from wrnn_jax.report.papertables import PAPER_TABLES, PaperTable
from wrnn_jax.report.pictures import pictures
from wrnn_jax.report.published import PAPERS
from wrnn_jax.report.runs import Found, Run, find_runs
from wrnn_jax.report.tables import Filling, comparison, fill, is_short
from wrnn_jax.validation import InvalidValue

TITLE = "Traveling waves in recurrent networks: results beside the papers'"
FIGURES = "figures"
INTRODUCTION = "Left in each table, what its paper reports; right, what the runs read here came to. The papers:"
LEGEND = (
    "Ours is the mean over seeds, ± their standard deviation (n − 1) where there are two or more; where the best seed "
    "is shown as well, its column says so. A difference is "
    "ours − paper; losses, which span orders of magnitude, are divided: ours ÷ paper, below 1 where ours is lower.",
    "Parameters of ours: all, and in brackets those that are no biases, which the papers' numbers mostly are.",
    "A line shows runs that have all it asks for: model, size, start, data. If several sets of runs do, it shows those "
    "that finished before those that did not, then the longest, then those with the most seeds, then the last by name. "
    "A result never decides. All other runs are listed below the table with the reason.",
    "“no run”: no run read here fits the line. Runs that were interrupted or diverged are named so, and never averaged "
    "with others.",
)


class Report(NamedTuple):
    """What :func:`build_report` has written, from how much."""

    markdown: Path
    html: Path
    figures: tuple[Path, ...]
    runs: int
    """With a summary."""
    unfinished: int
    """Run directories without one."""


def build_report(runs: Path, out: Path) -> Report:
    """Write all runs' results beside the papers' tables: ``report.md``, its ``figures/``, and ``report.html``.

    The HTML page needs no other file. Other files in ``out`` stay as they are; those that the report is made of are
    replaced one by one, each whole.

    Args:
      runs: a folder with run directories, or with copies of their ``summary.json``, at any depth.
      out: the folder to write; made if it is not there.

    Raises:
      InvalidValue: if ``runs`` is no folder, holds no run, or holds a summary that cannot be read (its file is
        named; nothing is written then), or if ``out`` cannot be written.
      OSError: if a run's metrics or pictures cannot be read.
    """
    found = find_runs(Path(runs))
    document = make_document(found)
    images = _images(document)
    out = Path(out)
    try:
        (out / FIGURES).mkdir(parents=True, exist_ok=True)
        for image in images:
            write_atomically(out / FIGURES / image.file, image.png)
        write_atomically(out / "report.md", to_markdown(document, FIGURES))
        write_atomically(out / "report.html", to_html(document))
    except OSError as error:
        raise InvalidValue("out", str(out), f"a folder that can be written ({error.strerror})") from error
    files = tuple(out / FIGURES / image.file for image in images)
    return Report(out / "report.md", out / "report.html", files, len(found.runs), len(found.unfinished))


def paper_table(slug: str, runs: Path) -> str:
    """The lines of one of the papers' tables that there are runs for, with ours beside them, as Markdown.

    Args:
      slug: which, such as "copy-ablation".
      runs: as in :func:`build_report`.

    Raises:
      InvalidValue: as in :func:`build_report`.
    """
    (table,) = (table for table in PAPER_TABLES if table.slug == slug)
    filling = fill(table, find_runs(Path(runs)).runs)
    shown = [filled for filled in filling.lines if filled.shown]
    return table_to_markdown(comparison(filling._replace(lines=shown)))


def make_document(found: Found) -> Document:
    """The report on what was found: a section for each of the papers' tables, then what belongs to none."""
    fillings = [fill(table, found.runs) for table in PAPER_TABLES]
    blocks = [Paragraph(INTRODUCTION), Bullets(PAPERS), Bullets(LEGEND), _overview(fillings)]
    strangers = _in_none(PAPER_TABLES, found.runs)
    of_ours_alone = [table for table in [other_models(strangers)] if table]
    fillings += [fill(table, strangers) for table in of_ours_alone]
    sections = [Section(filling.table.title, _table_blocks(filling)) for filling in fillings]
    return Document(TITLE, blocks, [*sections, *_remainder(found, _in_none(of_ours_alone, strangers))])


def _in_none(tables: Iterable[PaperTable], runs: Iterable[Run]) -> list[Run]:
    """The runs that no table holds."""
    return [run for run in runs if not any(table.holds(run.known) for table in tables)]


def _overview(fillings: Sequence[Filling]) -> Table:
    """How much of each table there is."""
    rows = []
    for filling in fillings:
        ours = [filled for filled in filling.lines if filled.line.wants is not None]
        shown = [filled for filled in ours if filled.shown]
        whole = sum(not is_short(filling.table, filled) for filled in shown)
        counts = (len(ours), len(shown), whole, len(filling.others))
        rows.append([Cell(filling.table.title, "name"), *(Cell(str(count), "number") for count in counts)])
    header = ["table", "lines of models that are here", "with a run", "as long as the paper's", "other runs"]
    return Table("What there is", header, rows)


def _table_blocks(filling: Filling) -> list[Block]:
    notes = [Paragraph(note) for note in filling.table.notes]
    return [*notes, comparison(filling), *pictures(filling), *runs_shown(filling), *other_runs(filling)]


def _remainder(found: Found, strangers: Sequence[Run]) -> list[Section]:
    """What is in no table: runs of other tasks or lengths, unfinished runs, other files."""
    skipped = [Paragraph("JSON files that are no summary of a run, and were left out:"), Bullets(found.skipped)]
    parts = [
        ("Other runs", runs_of_no_table(strangers)),
        ("Unfinished runs", [unfinished_runs(found.unfinished)] if found.unfinished else []),
        ("Other files", skipped if found.skipped else []),
    ]
    return [Section(title, blocks) for title, blocks in parts if blocks]


def _images(document: Document) -> list[Image]:
    return [block for section in document.sections for block in section.blocks if isinstance(block, Image)]
