"""Links between the pages, and how long the pages are."""

from __future__ import annotations

import re

import pytest

from pages import PAGES, ROOT, outside_blocks, text

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: Tables that programs write.
LONG = {"docs/zoo.md", "docs/reference.md", "CHANGELOG.md"}


def anchors(page: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", outside_blocks(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in _LINK.findall(outside_blocks(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), f"{page}: {link}"


def test_the_index_leads_to_every_page() -> None:
    index = text("docs/README.md")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"]({page.removeprefix('docs/')})" in index, page


@pytest.mark.parametrize("page", [page for page in PAGES if page not in LONG])
def test_no_page_is_longer_than_one_reads(page: str) -> None:
    assert len(text(page).splitlines()) <= (150 if page == "README.md" else 220)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_every_file_of_the_code_that_a_page_names_exists(page: str) -> None:
    for path in re.findall(r"`((?:pfpcli|tests|benchmarks|samples|docs)/[\w./-]+)`", text(page)):
        assert (ROOT / path).exists(), path
