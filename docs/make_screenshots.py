"""Make the pictures of docs/how-to/read-the-report-page.md again, from a run on the samples.

    python docs/make_screenshots.py

Needs Chromium. Writes docs/how-to/report-page-*.webp.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
#: Name of a picture -> the sections that it shows, its height in pixels, and whether it is dark.
PICTURES = {
    "figures": (("head", "figures", "where", "skeleton"), 1540, False),
    "behaviour": (("why", "behaviour"), 1800, True),
}
WIDTH = 1120


def shoot(page: str, sections: tuple[str, ...], height: int, dark: bool, out: Path, scratch: Path) -> None:
    """Write a picture of some sections of a page."""
    shown = ", ".join(f"#{name}" for name in sections)
    file = scratch / "page.html"
    file.write_text(page.replace("</head>", f"<style>main > :not({shown}) {{ display: none }}</style></head>"), "utf-8")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium: install it, e.g. with `apt-get install chromium`")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={WIDTH},{height}"]
    subprocess.run([*command, f"--screenshot={scratch / 'shot.png'}", file.as_uri()], check=True, capture_output=True)
    with Image.open(scratch / "shot.png") as picture:
        picture.convert("RGB").save(out, quality=80, method=6)


def main() -> None:
    """Compress the sample network and write the pictures of its page."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        line = ["compress", "samples/model.pt", "--calib", "samples/images", "--keep", "0.4", "-q"]
        subprocess.run([sys.executable, "-m", "pfpcli", *line, "--out", str(scratch / "run")], cwd=ROOT, check=True)
        page = (scratch / "run" / "report.html").read_text("utf-8")
        for picture, (sections, height, dark) in PICTURES.items():
            out = ROOT / f"docs/how-to/report-page-{picture}.webp"
            shoot(page, sections, height, dark, out, scratch)
            print(f"{out.relative_to(ROOT)}  {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
