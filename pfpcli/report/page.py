"""Lines of text that fit a width and a character set."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

#: The reports' own characters -> their spelling where the terminal has only ASCII.
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

#: The narrowest shortened name. Below that, columns are left out instead.
SHORTEST = 16

#: The end of a line whose full text is on the page with everything.
CUT = " … --all"


def spell(text: str, unicode: bool) -> str:
    """Return the text in characters that a terminal may be given.

    Names of layers and files come from the checkpoint, so characters of escape sequences are replaced.
    """
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return text if unicode else text.translate(ASCII).encode("ascii", "replace").decode()


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """Return the text without its middle, at most `width` wide: both ends of a name tell it from others."""
    if len(text) <= width:
        return text
    left = max(width - len(ellipsis), 2)
    return text[: left - left // 2] + ellipsis + text[-(left // 2) :]


class Page:
    """A page of text that is written line by line.

    Every text passes `spell`.

    Attributes:
        width: number of columns; no line is longer, unless it is a single word.
        unicode: whether characters beyond ASCII may be used.
        lines: the lines written so far.
    """

    def __init__(self, width: int, unicode: bool) -> None:
        self.width = width
        self.unicode = unicode
        self.lines: list[str] = []

    def text(self) -> str:
        """Return the whole page; it ends with a newline."""
        return "\n".join(line.rstrip() for line in self.lines) + "\n"

    def space(self) -> None:
        """Write an empty line, unless the page is empty or ends with one."""
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def paragraph(self, lead: str, text: str, indent: int = 2) -> None:
        """Write `lead` and then `text`, wrapped so that the lines of the text start in the same column.

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

    def line(self, lead: str, text: str, indent: int = 2) -> None:
        """Write `lead` and then `text` in one line; a text that is too long is cut at a space.

        `  warning: some images … --all`
        """
        lead = " " * indent + self._spell(lead)
        shortened = textwrap.shorten(
            self._spell(text),
            max(self.width - len(lead), SHORTEST),
            placeholder=self._spell(CUT),
            break_on_hyphens=False,
        )
        self.lines.append(lead + shortened)

    def table(self, rows: Sequence[Sequence[str]], align: str, shrink: int = 0, drop: Sequence[int] = ()) -> None:
        """Write rows of cells, two spaces between columns; the table is never wider than the page.

        Args:
            rows: the rows, all of the same length.
            align: "<" or ">" per column.
            shrink: the column whose cells are shortened where the page is too narrow.
            drop: the columns that are left out, in this order, before cells would get too short.
        """
        cells = [[self._spell(cell) for cell in row] for row in rows]
        columns = [index for index in range(len(align)) if any(row[index] for row in cells)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(align))]
        for index in drop:
            if self._left_for(shrink, widths, columns) < min(SHORTEST, widths[shrink]):
                columns = [column for column in columns if column != index]
        widths[shrink] = min(widths[shrink], max(self._left_for(shrink, widths, columns), SHORTEST))
        for row in cells:
            row[shrink] = shorten(row[shrink], widths[shrink], self._spell("…"))
            self.lines.append("  " + "  ".join(f"{row[c]:{align[c]}{widths[c]}}" for c in columns))

    def annotated(self, rows: Sequence[Sequence[str]], align: str) -> None:
        """Write rows of cells, aligned as in `table`; the last cell is a remark, which is wrapped in its column."""
        cells = [[self._spell(cell) for cell in row] for row in rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(align))]
        for *row, remark in cells:
            figures = "".join(f"  {cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True))
            left = max(self.width - len(figures) - 2, SHORTEST)
            first, *rest = [line for part in remark.split("\n") for line in textwrap.wrap(part, left) or [""]]
            self.lines.append(f"{figures}  {first}")
            self.lines += [" " * (len(figures) + 2) + line for line in rest]

    def _left_for(self, column: int, widths: list[int], columns: list[int]) -> int:
        """Return the width that the other columns leave for one column."""
        return self.width - sum(widths[c] for c in columns if c != column) - 2 * len(columns)

    def _spell(self, text: str) -> str:
        return spell(text, self.unicode)
