"""Text in columns: tables as data, and how they are shown, in plain text or on a terminal of some width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pruning.disk.plain import plain, plain_lines

_GAP = 2
# A cell is broken between these where it is too wide, and after an underscore: an interval stays together, and so does
# a number with its unit.
_TOKEN = re.compile(r"(\s*)(\S*\[[^\]]*\]\S*|[^\s_]*_|[^\s_]+(?: (?:%|pp)(?!\S))?)")
# To this a header is folded within its words before cells are broken.
_FOLDED = 8
Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table for people. `str` of it is plain text, as wide as what stands in it; `for_terminal` fits it to a width.

    Attributes:
        header: the columns' names.
        rows: texts below them.
        left: columns that are aligned on the left, by position; the others are on the right.
        marked: rows that are marked, with a star and, where there is colour, by colour.
        least: how wide each column is at the least, where there is room; by default as wide as what stands in it.
        keys: how many columns at the left are repeated where a table is too wide and is shown in parts.
        headed: whether the header is shown; its texts count for the widths in any case.
        unseen: rows that are not shown and count for the widths: of a table that is printed row by row.

    >>> print(Table(("level", "x"), (("0", "1.00"), ("1", "0.50")), marked=frozenset({1})))
    level     x
        0  1.00
      * 1  0.50
    """

    header: Row
    rows: tuple[Row, ...] = ()
    left: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    least: tuple[int, ...] = ()
    keys: int = 1
    headed: bool = True
    unseen: tuple[Row, ...] = ()

    def __str__(self) -> str:
        """Return plain text that depends on the table alone."""
        return _drawn(self, _natural(self), colours=False)

    def __add__(self, text: str) -> Report:
        """Return the table with a text below it, which may begin with the line break between the two."""
        return Report((self, text.removeprefix("\n")))


@dataclass(frozen=True)
class Report:
    """Tables and texts, one below the other.

    >>> print(Report(("Two:", Table(("n",), (("2",),)))) + "Done.")
    Two:
    n
    2
    Done.
    """

    parts: tuple[Table | str, ...]

    def __str__(self) -> str:
        """Return plain text that depends on the report alone."""
        return "\n".join(str(part) for part in self.parts)

    def __add__(self, text: str) -> Report:
        """Return the report with a text below it, which may begin with the line break between the two."""
        return Report((*self.parts, text.removeprefix("\n")))


Shown = Table | Report | str
"""What is printed for people."""


def report(*parts: Shown) -> Report:
    """Return tables, texts and reports one below the other.

    >>> str(report("a", report("b", "c")))
    'a\\nb\\nc'
    """
    flat = [part.parts if isinstance(part, Report) else (part,) for part in parts]
    return Report(tuple(part for some in flat for part in some))


def for_terminal(shown: Shown, room: int, colours: bool) -> str:
    """Return the text for a terminal: its tables fit into its width. Texts stay as they are; a terminal wraps them.

    What is too wide gives way in this order: empty space, headers (over several lines), cells (broken between words).
    What is too wide even so is shown in parts, one below the other, each with the columns at the left.

    Args:
        shown: tables and texts.
        room: the width of the terminal, in characters.
        colours: whether the terminal knows any.

    >>> print(for_terminal(Table(("test", "its level"), (("0.50", "0"),)), 11, False))
            its
    test  level
    0.50      0
    """
    texts: list[str] = []
    for part in report(shown).parts:
        if isinstance(part, str):
            texts.append(plain_lines(part))
        else:
            texts += [_drawn(one, _widths(one, room), colours) for one in _split(part, room)]
    return "\n".join(texts)


def _cells(table: Table) -> list[Row]:
    """Return all rows, seen and unseen, as they are written: in one line each, marked rows with their star."""
    rows = [tuple(map(plain, row)) for row in (*table.rows, *table.unseen)]
    return [(f"* {row[0]}", *row[1:]) if at in table.marked else row for at, row in enumerate(rows)]


def _columns(table: Table, measure: Callable[[str], int]) -> list[int]:
    """Return the largest of a measure of each column's cells."""
    return [max((measure(row[at]) for row in _cells(table)), default=0) for at in range(len(table.header))]


def _size(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _longest(text: str) -> int:
    return max((_size(token) for _, token in _TOKEN.findall(text)), default=0)


def _most(*widths: Sequence[int]) -> list[int]:
    return [max(1, *each) for each in zip(*widths, strict=True)]


def _natural(table: Table) -> list[int]:
    """Return widths in which nothing is broken."""
    heads = [_size(plain(name)) for name in table.header]
    return _most(table.least or heads, heads, _columns(table, _size))


def _widths(table: Table, room: int) -> list[int]:
    """Return the widths of the columns in a room: each gives way no further than is needed."""
    heads, words = ([measure(plain(name)) for name in table.header] for measure in (_size, _longest))
    cells, broken = _columns(table, _size), _columns(table, _longest)
    widths, room = _natural(table), room - _GAP * (len(table.header) - 1)
    folded = [min(word, _FOLDED) for word in words]
    floors = _most(heads, cells), _most(words, cells), _most(folded, cells), _most(folded, broken), [1] * len(heads)
    for floor in floors:
        while sum(widths) > room and any(width > least for width, least in zip(widths, floor, strict=True)):
            widest = max(range(len(widths)), key=lambda at: (widths[at] > floor[at], widths[at], at))
            widths[widest] -= 1
    return widths


def _split(table: Table, room: int) -> list[Table]:
    """Return the table in parts that fit; one part where it fits with broken cells, or has no columns to part."""
    words = [min(_longest(plain(name)), _FOLDED) for name in table.header]
    narrowest = _most(words, _columns(table, _longest))
    if sum(narrowest) + _GAP * (len(narrowest) - 1) <= room:
        return [table]
    # In parts there is room enough: their cells stay whole.
    widths = _most(words, _columns(table, _size))
    keys = list(range(min(table.keys, len(widths))))
    parts: list[list[int]] = []
    for at in range(len(keys), len(widths)):
        here = [*parts[-1], at] if parts else []
        if here and sum(widths[column] + _GAP for column in here) - _GAP <= room:
            parts[-1] = here
        else:
            parts.append([*keys, at])
    return [_some_columns(table, part) for part in parts] or [table]


def _some_columns(table: Table, which: Sequence[int]) -> Table:
    def some(row: Row) -> Row:
        return tuple(row[at] for at in which)

    return replace(
        table,
        header=some(table.header),
        rows=tuple(map(some, table.rows)),
        unseen=tuple(map(some, table.unseen)),
        left=frozenset(at for at, column in enumerate(which) if column in table.left),
        least=(),
    )


def _broken(text: str, width: int) -> str:
    """Break a text between its words into lines of a width, where that can be done.

    >>> _broken("98.06 [96.04, 99.05]", 14)
    '98.06\\n[96.04, 99.05]'
    """
    if _size(text) <= width:
        return text
    lines: list[str] = []
    for space, token in _TOKEN.findall(text):
        if lines and _size(lines[-1] + space + token) <= width:
            lines[-1] += space + token
        else:
            lines.append(token)
    return "\n".join(lines)


def _drawn(table: Table, widths: Sequence[int], colours: bool) -> str:
    """Return the lines of a table, without space at their ends."""
    from rich.color import ColorSystem
    from rich.console import Console
    from rich.segment import Segment
    from rich.style import Style
    from rich.table import Table as Grid
    from rich.text import Text

    def paint(text: str, style: Style | None) -> str:
        return style.render(text, color_system=ColorSystem.STANDARD) if style and colours else text

    def cells(row: Row) -> list[str]:
        return [_broken(text, width) for text, width in zip(row, widths, strict=True)]

    grid = Grid(box=None, show_header=table.headed, padding=(0, _GAP, 0, 0), header_style="bold")
    heads = cells(tuple(map(plain, table.header)))
    lowest = max((head.count("\n") for head in heads), default=0)
    for at, (head, width) in enumerate(zip(heads, widths, strict=True)):
        side: Literal["left", "right"] = "left" if at in table.left else "right"
        grid.add_column(Text("\n" * (lowest - head.count("\n")) + head), justify=side, width=width, overflow="fold")
    for at, row in enumerate(_cells(table)[: len(table.rows)]):
        grid.add_row(*map(Text, cells(row)), style="bold green" if at in table.marked else None)
    # Nothing of the surroundings has a say: neither variables nor what Python runs in.
    console = Console(file=io.StringIO(), width=sum(widths) + _GAP * len(widths), force_jupyter=False)
    lines: list[str] = []
    for line in console.render_lines(grid, pad=False):
        end = _size("".join(segment.text for segment in line).rstrip())
        segments = Segment.simplify(Segment.adjust_line_length(line, end))
        lines.append("".join(paint(segment.text, segment.style) for segment in segments))
    return "\n".join(lines)
