"""Page: lines of text that fit a width and a character set; every character a terminal gets passes `spell`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

#: What the reports' own characters become where the terminal has only ASCII.
ASCII = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "·": "-",
        "×": "x",
        "→": "->",
        "…": "...",
        "≡": "=",
        "≠": "!=",
        "≤": "<=",
        "±": "+-",
        "ε": "eps",
        "Σ": "sum",
    }
)

#: The narrowest a shortened name gets; below that, columns are left out instead.
SHORTEST = 16


def spell(text: str, unicode: bool) -> str:
    """The text in characters a terminal may be given.

    Names of layers and files come from the checkpoint, so escape sequences among them are taken out.
    """
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return text if unicode else text.translate(ASCII).encode("ascii", "replace").decode()


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """The text with its middle left out, so that it is at most `width` wide: both ends of a name tell it apart."""
    if len(text) <= width:
        return text
    room = max(width - len(ellipsis), 2)
    return text[: room - room // 2] + ellipsis + text[-(room // 2) :]


class Page:
    """Text in the making.

    Attributes:
        width: columns; no line is longer, unless it is a single word.
        unicode: whether characters beyond ASCII may be used.
        lines: what was written so far.
    """

    def __init__(self, width: int, unicode: bool) -> None:
        self.width = width
        self.unicode = unicode
        self.lines: list[str] = []

    def text(self) -> str:
        """The whole page; ends with a newline."""
        return "\n".join(line.rstrip() for line in self.lines) + "\n"

    def space(self) -> None:
        """Keep a distance to what was written before."""
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def paragraph(self, lead: str, text: str, indent: int = 2) -> None:
        """`lead` and then `text`, wrapped so that its lines start below each other.

        `  warning: some images were
                    skipped`
        """
        lead = " " * indent + self._spell(lead)
        self.lines += textwrap.wrap(
            self._spell(text),
            self.width,
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [lead]

    def table(self, rows: Sequence[Sequence[str]], align: str, shrink: int = 0, drop: Sequence[int] = ()) -> None:
        """Rows of cells, two spaces between columns; never wider than the page, and no row is broken.

        Args:
            rows: all of the same length.
            align: "<" or ">" per column.
            shrink: the column whose cells are shortened where the page is too narrow.
            drop: columns left out, in this order, before cells would get too short.
        """
        cells = [[self._spell(cell) for cell in row] for row in rows]
        columns = [index for index in range(len(align)) if any(row[index] for row in cells)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(align))]
        for index in drop:
            if self._room(widths, columns, shrink) < min(SHORTEST, widths[shrink]):
                columns = [column for column in columns if column != index]
        widths[shrink] = min(widths[shrink], max(self._room(widths, columns, shrink), SHORTEST))
        for row in cells:
            row[shrink] = shorten(row[shrink], widths[shrink], self._spell("…"))
            self.lines.append("  " + "  ".join(f"{row[c]:{align[c]}{widths[c]}}" for c in columns))

    def annotated(self, rows: Sequence[Sequence[str]], align: str) -> None:
        """Rows of cells, aligned as in `table`, and then a remark of any length, whose lines stand below each other."""
        cells = [[self._spell(cell) for cell in row] for row in rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(align))]
        for *row, remark in cells:
            figures = "".join(f"  {cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True))
            room = max(self.width - len(figures) - 2, SHORTEST)
            first, *rest = [line for part in remark.split("\n") for line in textwrap.wrap(part, room) or [""]]
            self.lines.append(f"{figures}  {first}")
            self.lines += [" " * (len(figures) + 2) + line for line in rest]

    def _room(self, widths: list[int], columns: list[int], shrink: int) -> int:
        """What the other columns leave for one."""
        return self.width - sum(widths[c] for c in columns if c != shrink) - 2 * len(columns)

    def _spell(self, text: str) -> str:
        return spell(text, self.unicode)
