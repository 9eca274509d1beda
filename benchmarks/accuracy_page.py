"""The page and the chart of `make bench-accuracy`, from the records of the points; imports no torch."""

from __future__ import annotations

from typing import Any

from points import BUDGETS, MINUTES, MODELS, TELLING, TRAINED, untrained

from pfpcli.report import chart

#: Points of a percentage that a network may have more or less than it was asked for before the table says so.
CLOSE = 0.5
NAMES = {"pfp": "pfp", "torch-pruning": "Torch-Pruning", "onnxsim": "onnxsim"}
TITLES = {"resnet20": "ResNet-20", "resnet56": "ResNet-56"}
#: Of the columns that say what a point costs.
COSTS_AT = BUDGETS[0]

Record = dict[str, Any]

BEGINS = """# Accuracy beside other tools

Made by `make bench-accuracy`. pfp, Torch-Pruning and onnxsim cut the same networks, trained on CIFAR-10 (option-A
shortcuts), to the same fractions of their multiply-adds; accuracy is measured on the same images.

- **Images.** A JPEG-coded subset that is not part of this repository. Every tool may look at the same 1,024 training
  images; accuracy is measured on the 2,000 test images. They are no fully independent test of pfp: a few of its
  constants were chosen among a few values each with these figures in view. These are the power of reading layers in its
  choice of widths and the learning rate of its distillation (on both networks), and the rounds of its refit in front of
  a ReLU and how its distillation changes images (on ResNet-20).
- **Labels.** No tool sees labels, except for `taylor` (of Torch-Pruning and of pfp), which needs those of the training
  images. Criteria of weights alone look at no image. The criteria of pfp and its choice of widths use as many images as
  they ask for by default; its recovery is fitted to five in six of all images, and the rest decide whether it helped.
- **Budget.** Fractions of the original's MACs in convolutions and linear layers, counted in the cut network.
  Torch-Pruning and onnxsim take ratios of channels; bisection found the ratio that comes closest. MACs that are off by
  more than half a point are in brackets.
- **pfp** runs with the criterion named and `--allocate divergence --recover lsq`, the defaults when this was measured,
  nothing trained. `obs, uniform` has `--allocate uniform`; `obs, 3 steps` has `--steps 3`. `pfp, as published` has
  `--criterion pfp`, `--allocate pfp` and `--recover none`: the scores of the paper and one error bound for all layers,
  without the retraining of the paper.
- **Torch-Pruning** fails on option-A shortcuts, so it was restricted to the channels inside of blocks. It uses one
  ratio for all layers, as in its README, or one ranking of all channels (`-global`).
- **onnxsim** cuts inside of blocks only, with one sparsity for all layers. Its own recovery follows the `+`: `bn` is
  `recover_batch_norm` in one call; `bn-in-turn` recovers one norm after the other.
- **Training**, where the heading names it: SGD on the outputs of the original, without labels, with flips and shifts of
  the same 1,024 images, and the same recipe and time for all tools. Its learning rate was chosen on one point of
  Torch-Pruning. `obs, pfp's own distillation` does not use that recipe but `--recover lsq,distill`, for the same time:
  other losses, stronger changes of the images, and products in 16 bits if the CPU has them.
- **Time and memory** are those of the compression: tracing the network, choosing channels, cutting, and the tool's own
  recovery. They exclude reading the network, evaluation, checks, export and the training of the recipe. Those of
  Torch-Pruning and onnxsim include the bisection, because these tools take no budget of MACs. Memory is the peak of the
  whole process by then, libraries included.

One run of every point, one seed. †: measured with one thread, with other work on the other core and at times on the
same one, so these seconds cannot be compared with those of two threads. –: not measured; rows and tables without a
measured point are left out (`make bench-accuracy` measures all of them, in many hours)."""


def conditions(found: list[Record]) -> str:
    """Threads and versions, as the records have them."""
    threads: dict[str, set[int]] = {}
    for record in found:
        threads.setdefault(record["tool"], set()).add(record["threads"])
    used = ", ".join(f"{tool} {' or '.join(map(str, sorted(each)))}" for tool, each in sorted(threads.items()))
    versions = {f"{name} {version}" for record in found for name, version in record["versions"].items()}
    seconds = sum(record["wall"] for record in found)
    return f"{len(found)} points, {seconds / 3600:.1f} hours, threads: {used}; {', '.join(sorted(versions))}."


def markdown(found: list[Record]) -> str:
    """All points as a Markdown page."""
    parts = [BEGINS, "" if not found else conditions(found)]
    for minutes in (0.0, MINUTES):
        for model in MODELS:
            if any((r["model"], r["minutes"]) == (model, minutes) for r in found):
                parts += [heading(found, model, minutes), table(found, model, minutes)]
    if charted(found):
        parts.append(f"![{TITLES[MODELS[0]]}: accuracy against MACs](accuracy.svg)")
    failed = [f"- {name(record)}: {record['why']}" for record in found if record["status"] != "ok"]
    parts += ["## What came to nothing", "\n".join(failed)] if failed else []
    return "\n\n".join(part for part in parts if part) + "\n"


def name(record: Record) -> str:
    """A point in words."""
    trained = f", trained for {record['minutes']:g} minutes" if record["minutes"] else ""
    row = label(record["tool"], record["criterion"])
    return f"{row}, {TITLES[record['model']]} at {record['asked']:.0%} of the MACs{trained}".replace("%", " %")


def label(tool: str, criterion: str) -> str:
    """A row's name; pfp's criterion of the same name is called so once."""
    return f"{NAMES[tool]} `{criterion}`"


def heading(found: list[Record], model: str, minutes: float) -> str:
    """What a table shows, and the accuracy of the original."""
    done = f"trained for {minutes:g} minutes" if minutes else "nothing trained"
    before = [record["before"] for record in found if record["model"] == model and record["status"] == "ok"]
    whole = f"Before: {100 * before[0]:.1f} % of the 2,000 test images." if before else ""
    if minutes:
        whole += f" Threads: {threads(found, model, minutes)}."
    return f"## {TITLES[model]}, {done}\n\n{whole}".rstrip()


def threads(found: list[Record], model: str, minutes: float) -> str:
    """How many threads trained at each budget; in the same time, fewer of them see fewer images."""
    said = []
    for budget in sorted(BUDGETS, reverse=True):
        wanted = (model, minutes, budget)
        used = {
            record["threads"] for record in found if (record["model"], record["minutes"], record["asked"]) == wanted
        }
        said += [f"{' or '.join(map(str, sorted(used)))} at {100 * budget:.0f} %"] if used else []
    return ", ".join(said)


def table(found: list[Record], model: str, minutes: float) -> str:
    """A row for every criterion, a column for every budget, and what the middle one cost."""
    there = {
        (r["tool"], r["criterion"], r["asked"]): r for r in found if (r["model"], r["minutes"]) == (model, minutes)
    }
    budgets = sorted(BUDGETS, reverse=True)
    at = f"at {COSTS_AT:.0%}".replace("%", " %")
    head = ["keep of the MACs", *(f"{100 * budget:.0f} %" for budget in budgets), f"s {at}", f"MB {at}"]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for tool, criterion in TRAINED if minutes else by_tool():
        if not any((tool, criterion, budget) in there for budget in budgets):
            continue
        cells = [cell(there.get((tool, criterion, budget))) for budget in budgets]
        costs = cost(there.get((tool, criterion, COSTS_AT)))
        lines.append(f"| {' | '.join([label(tool, criterion), *cells, *costs])} |")
    return "\n".join(lines)


def by_tool() -> list[tuple[str, str]]:
    """Rows of the untrained points, those of a tool together."""
    rows = untrained()
    return sorted(rows, key=lambda row: list(NAMES).index(row[0]))


def cell(record: Record | None) -> str:
    """Accuracy, and the MACs if they are not what was asked for."""
    if record is None:
        return "–"
    if record["status"] != "ok":
        return record["status"]
    macs = f" ({100 * record['macs']:.1f} %)" if 100 * abs(record["macs"] - record["asked"]) > CLOSE else ""
    return f"{100 * record['accuracy']:.1f} %{macs}"


def cost(record: Record | None) -> tuple[str, str]:
    """Seconds and megabytes."""
    if record is None or record["status"] != "ok":
        return "–", "–"
    return f"{record['seconds']:.1f}{' †' if record['threads'] == 1 else ''}", f"{record['peak_mb']:.0f}"


def charted(found: list[Record]) -> list[chart.Line]:
    """The lines of the chart: the most telling criteria on the first network, nothing trained."""
    lines = []
    for tool, criterion in TELLING:
        mine = (tool, criterion, MODELS[0], 0.0)
        records = [r for r in found if (r["tool"], r["criterion"], r["model"], r["minutes"]) == mine]
        points = sorted((100 * r["macs"], 100 * r["accuracy"]) for r in records if r["status"] == "ok")
        if points:
            lines.append(chart.Line(f"{NAMES[tool]} {criterion}", points))
    return lines


def svg(found: list[Record]) -> str:
    """Accuracy against MACs, a line for each criterion."""
    title = f"{TITLES[MODELS[0]]}, CIFAR-10: accuracy right after the cut, nothing trained, 2,000 images"
    return chart.lines(title, "MACs kept, %", "accuracy, %", charted(found))
