"""The page of `pfp latency`: the time of each layer, predicted and measured."""

from __future__ import annotations

from pfpcli.records.latencies import Latencies
from pfpcli.report.page import Page

#: Number of layers, unless everything is shown.
ROWS = 15


def render(found: Latencies, *, width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the page.

    model.pt: 0.52 ms in onnxruntime (quartiles 0.01 ms apart), 0.49 ms predicted

      layer   op            in → out   table  measured  with half the channels
      conv1   conv2d+relu     3 → 32    0.05      0.05                    0.03
    """
    page = Page(width, unicode)
    machine = found.machine
    named = found.model["name"] + (f" in {machine['precision']}" if "precision" in machine else "")
    page.paragraph(
        "",
        f"{named}: {found.measured_ms:.3g} ms in onnxruntime {machine['onnxruntime']} (quartiles "
        f"{found.quartiles_ms:.2g} ms apart), {found.predicted_ms:.3g} ms predicted from {found.operators} operators",
        0,
    )
    page.paragraph("", f"{machine['processor']}, {machine['threads']} threads, {machine['provider']}", 0)
    layers = found.layers if everything else sorted(found.layers, key=lambda each: -each.predicted_ms)[:ROWS]
    rows = [
        (
            each.name,
            each.op,
            f"{each.channels[0]} → {each.channels[1]}",
            f"{each.predicted_ms:.3g}",
            "–" if each.measured_ms is None else f"{each.measured_ms:.3g}",
            f"{each.halved_ms:.3g}",
        )
        for each in layers
    ]
    page.space()
    page.table([("layer", "op", "channels", "table ms", "measured", "halved"), *rows], "<<>>>>", drop=(1,))
    if len(found.layers) > len(rows):
        page.paragraph("", f"… {len(found.layers) - len(rows)} quicker ones, --all")
    if found.unknown:
        page.paragraph("", f"not in the table: {', '.join(found.unknown)}")
    if found.pack:
        page.space()
        page.paragraph("", f"wrote {found.pack}; on the other machine: python3 {found.pack} table.json")
    return page.text()
