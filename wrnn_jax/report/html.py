"""A report as one HTML page that needs nothing else: pictures and style inside, no scripts."""

import base64
import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from wrnn_jax.report.document import Block, Bullets, Cell, Document, Image, Paragraph, Section, Table

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5b6470; --page: #fff; --line: #d9dee4; --tint: #eef5fb;
  --ours: #00528a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa4b0; --page: #15181c; --line: #363c44; --tint: #1b2733; --ours: #7cc0f2; } }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.5rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p, ul { max-width: 50rem; }
nav ul { columns: 18rem; padding-left: 1.2rem; }
a { color: var(--ours); }
.table { overflow-x: auto; margin: 1rem 0 1.5rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; caption-side: top; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--ink); font-weight: 600; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 600; white-space: nowrap; }
tbody th.code { font-weight: 400; white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
td:last-child { min-width: 10rem; }
td.number, td.paper, td.ours, td.missing { text-align: right; white-space: nowrap; }
th.number { text-align: right; }
td.ours { color: var(--ours); background: var(--tint); font-weight: 600; }
td.missing { color: var(--soft); }
code { font: .9em ui-monospace, monospace; }
figure { margin: 1.5rem 0; max-width: 56rem; }
img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
figcaption { color: var(--soft); font-size: .875rem; margin-top: .35rem; }
@page { size: landscape; margin: 1.2cm; }
@media print {
  :root { --ink: #000; --soft: #444; --page: #fff; --line: #bbb; --tint: #fff; --ours: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .table { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; }
  tbody th.code, td:last-child { min-width: 4rem; }
  tbody th, td.number, td.paper, td.ours, td.missing { white-space: normal; }
  thead { display: table-header-group; }
  tr, figure { break-inside: avoid; }
  h2, caption { break-after: avoid; } }
"""


def to_html(document: Document) -> str:
    """The document as a whole page: HTML 5, every element closed."""
    body = [
        "<header>",
        f"<h1>{escape(document.title)}</h1>",
        *_blocks(document.blocks),
        "</header>",
        *_contents(document.sections),
        "<main>",
        *(line for section in document.sections for line in _section(section)),
        "</main>",
    ]
    head = [
        '<meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>{escape(document.title)}</title>",
        f"<style>{STYLE}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(lines) + "\n"


def _contents(sections: Sequence[Section]) -> list[str]:
    items = [f'<li><a href="#{_anchor(section.title)}">{escape(section.title)}</a></li>' for section in sections]
    return ['<nav aria-label="Contents">', "<ul>", *items, "</ul>", "</nav>"]


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{_anchor(section.title)}">'
    yield f"<h2>{escape(section.title)}</h2>"
    yield from _blocks(section.blocks)
    yield "</section>"


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Paragraph(text):
                yield f"<p>{escape(text)}</p>"
            case Bullets(items):
                yield f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
            case Image():
                yield from _figure(block)
            case Table():
                yield from _table(block)


def _figure(image: Image) -> Iterator[str]:
    data = base64.b64encode(image.png).decode("ascii")
    caption = escape(image.caption)
    yield f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"/>'
    yield f"<figcaption>{caption}</figcaption></figure>"


def _table(table: Table) -> Iterator[str]:
    yield '<div class="table"><table>'
    yield f"<caption>{escape(table.caption)}</caption>"
    cells = "".join(_header(table, column) for column in range(len(table.header)))
    yield f"<thead><tr>{cells}</tr></thead>"
    # Lines of one name are a row group, which has the name once.
    for _, rows in groupby(table.rows, key=lambda row: row[0]):
        yield from _row_group(list(rows))
    yield "</table></div>"


def _header(table: Table, column: int) -> str:
    kind = "number" if table.is_right_aligned(column) else "text"
    return f'<th scope="col" class="{kind}">{escape(table.header[column])}</th>'


def _row_group(rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    name = rows[0][0]
    text = f"<code>{escape(name.text)}</code>" if name.kind == "code" else escape(name.text)
    span = f'scope="rowgroup" rowspan="{len(rows)}"' if len(rows) > 1 else 'scope="row"'
    yield "<tbody>"
    for index, row in enumerate(rows):
        head = f'<th {span} class="{name.kind}">{text}</th>' if index == 0 else ""
        yield f"<tr>{head}{''.join(_cell(cell) for cell in row[1:])}</tr>"
    yield "</tbody>"


def _cell(cell: Cell) -> str:
    return f'<td class="{cell.kind}">{escape(cell.text)}</td>'
