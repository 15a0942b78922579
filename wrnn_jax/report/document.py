"""What a report is made of, before it is Markdown or HTML."""

from collections.abc import Sequence
from typing import Literal, NamedTuple


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    kind: Literal["name", "text", "number", "paper", "ours", "missing", "code"] = "text"


class Table(NamedTuple):
    """A table; the first cell of a row names it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def is_right_aligned(self, column: int) -> bool:
        """Whether a column has numbers."""
        return any(row[column].kind in ("number", "paper", "ours") for row in self.rows)


class Paragraph(NamedTuple):
    """Plain text."""

    text: str


class Bullets(NamedTuple):
    """Short texts below each other."""

    items: Sequence[str]


class Image(NamedTuple):
    """A picture."""

    file: str
    """Its name in the folder of figures."""
    png: bytes
    caption: str


Block = Table | Paragraph | Bullets | Image


class Section(NamedTuple):
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


class Document(NamedTuple):
    """A whole report."""

    title: str
    blocks: Sequence[Block]
    sections: Sequence[Section]
