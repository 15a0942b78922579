"""A report as Markdown (GitHub's tables), its pictures beside it."""

import re
from collections.abc import Iterator, Sequence

from wrnn_jax.report.document import Block, Bullets, Cell, Document, Image, Paragraph, Table

SPECIAL = re.compile(r"[\\`*_\[\]<>|#~$&]|^[-+]")


def to_markdown(document: Document, figures: str) -> str:
    """The document as Markdown.

    Args:
      document: the report.
      figures: the folder of its pictures, seen from the Markdown file.
    """
    lines = [f"# {_escape(document.title)}", *_blocks(document.blocks, figures)]
    for section in document.sections:
        lines += [f"## {_escape(section.title)}", *_blocks(section.blocks, figures)]
    return "\n\n".join(lines) + "\n"


def table_to_markdown(table: Table) -> str:
    """One table, without its caption."""
    rule = ["---:" if table.is_right_aligned(column) else "---" for column in range(len(table.header))]
    rows = [[_escape(name) for name in table.header], rule, *([_cell(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _blocks(blocks: Sequence[Block], figures: str) -> Iterator[str]:
    for block in blocks:
        match block:
            case Paragraph(text):
                yield _escape(text)
            case Bullets(items):
                yield "\n".join(f"- {_escape(item)}" for item in items)
            case Image(file, _, caption):
                yield f"![{_escape(caption)}]({figures}/{file})"
                yield f"*{_escape(caption)}*"
            case Table():
                yield f"**{_escape(block.caption)}**"
                yield table_to_markdown(block)


def _cell(cell: Cell) -> str:
    text = _escape(cell.text)
    return f"**{text}**" if cell.kind == "ours" else text


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
