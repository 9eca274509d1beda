"""The page in a browser: no errors, sorting and filtering, nothing wider than a narrow screen, dark and print.

Each test runs headless Chromium on the file; all of them are skipped where there is none.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from details import details
from pfpcli.report.html.page import render
from runs import layers, run, sparse_run, tuned_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium")

#: What a test does to a page: it leaves JSON in the title. The page's own policy allows scripts inside of it.
_TOLD = "<script>{code}; document.title = JSON.stringify(told);</script>"
_COMMON = """
const told = {};
const rows = (id) => [...document.querySelectorAll(`#${id} tbody tr`)].filter((row) => row.offsetParent)
    .map((row) => row.cells[0].textContent);
const button = (id, name) => [...document.querySelectorAll(`#${id} th button`)]
    .find((each) => each.textContent === name);
const type = (id, text) => { const box = document.querySelector(`#${id} [type=search]`); box.value = text;
    box.dispatchEvent(new Event("input")); };
"""


def browse(file: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a file, and check that nothing is written to the console."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={file.parent / 'profile'}", *flags, file.as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    return done


def told(page: str, code: str, tmp_path: Path, *flags: str) -> dict[str, Any]:
    """Run a script at the end of a page and return what it puts into `told`."""
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", _TOLD.format(code=_COMMON + code) + "</body>"), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", browse(file, "--dump-dom", *flags).stdout, re.DOTALL)
    assert title is not None
    found: dict[str, Any] = json.loads(title[1].replace("&amp;", "&").replace("&gt;", ">").replace("&lt;", "<"))
    return found


def test_a_click_sorts_the_layers_and_a_third_one_brings_their_order_back(tmp_path: Path) -> None:
    code = """
        for (const step of ["first", "second", "third"]) {
          button("layers", "parameters").click();
          told[step] = [rows("layers"), document.querySelectorAll("#layers th")[4].getAttribute("aria-sort")];
        }
        button("layers", "layer").click();
        told.names = rows("layers");
    """
    found = told(render(run()), code, tmp_path)
    order = [layer.name for layer in layers()]
    sizes = {layer.name: layer.params[1] for layer in layers()}
    assert [sizes[name] for name in found["first"][0]] == sorted(sizes.values(), reverse=True)
    assert [sizes[name] for name in found["second"][0]] == sorted(sizes.values())
    assert [found[step][1] for step in ("first", "second", "third")] == ["descending", "ascending", None]
    assert found["third"][0] == order
    assert found["names"] == sorted(order)


def test_a_filter_leaves_the_rows_that_hold_a_text_and_counts_them(tmp_path: Path) -> None:
    code = """
        type("layers", "LAYER2"); told.some = rows("layers");
        told.count = document.querySelector("#layers output").textContent;
        type("layers", ""); told.all = rows("layers");
        document.querySelector("#layers [type=checkbox]").click(); told.changed = rows("layers");
    """
    found = told(render(run()), code, tmp_path)
    assert found["some"] == [layer.name for layer in layers() if layer.name.startswith("layer2")]
    assert found["count"] == "4 of 14"
    assert found["all"] == [layer.name for layer in layers()]
    assert set(found["all"]) - set(found["changed"]) == {"conv1", "linear"}


@pytest.mark.parametrize("made", [run(), sparse_run(), tuned_run()], ids=lambda made: made.kind)
def test_a_narrow_page_scrolls_tables_and_not_itself(made: Any, tmp_path: Path) -> None:
    (tmp_path / "inner.html").write_text(render(made, details()), encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        '<iframe src="inner.html" width="400" height="800"></iframe><script>onload = () => {'
        "const page = frames[0].document.documentElement;"
        "document.title = JSON.stringify([page.scrollWidth, page.clientWidth]); }</script>",
        encoding="utf-8",
    )
    dom = browse(tmp_path / "frame.html", "--dump-dom", "--allow-file-access-from-files").stdout
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None, dom
    wide, visible = json.loads(title[1])
    assert wide <= visible


def test_a_dark_browser_gets_a_dark_page(tmp_path: Path) -> None:
    code = "told.ground = getComputedStyle(document.body).backgroundColor"
    light = told(render(run()), code, tmp_path)["ground"]
    dark = told(render(run()), code, tmp_path, "--blink-settings=preferredColorScheme=0")["ground"]
    assert light == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", dark))) < 60


def test_the_page_prints(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(run(), details()), encoding="utf-8")
    browse(file, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_without_javascript_everything_is_there_but_the_controls(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    page = re.sub(r"<script>.*</script>", "", render(run(), details()), flags=re.DOTALL)
    file.write_text(page, encoding="utf-8")
    dom = browse(file, "--dump-dom").stdout
    assert "<button" not in dom
    assert dom.count('class="controls" hidden') == page.count('class="controls" hidden') > 0
    assert all(f"<td>{layer.name}</td>" in dom for layer in layers())
