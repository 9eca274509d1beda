"""What tests read in pages for browsers."""

from __future__ import annotations

import re
from html.parser import HTMLParser

#: A name that would be markup, code or a template if it were not escaped.
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}</style>"


class Seen(HTMLParser):
    """The texts of a page, and how its elements nest."""

    VOID = ("meta", "input", "br", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script") and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        """What a reader sees."""
        return " ".join(self.texts)


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)
