"""One network, cut by another tool: how accurate it is at a fraction of its MACs.

    python benchmarks/peers.py --tool TOOL --criterion CRITERION --model MODEL --macs FRACTION [--data DIR]
                               [--minutes M]

Prints one line of JSON, so that whoever compares tools gives each point a process, and knows its time and memory.
`--list` prints the criteria of every tool. The tools are those of the extra `bench`. None takes a budget of MACs, so
the ratio that each does take is found by bisection; `seconds` and `peak_mb` are of that and of the tool's own recovery,
without evaluation and without the training of `--minutes`, which is the same for every tool.

**Torch-Pruning**: one ratio for all layers, which is what its README does; `-global` ranks all channels together.
Its dependency graph takes option-A shortcuts for something else; where that fails, the trunk is left as it is, and the
remark says so. `taylor` needs labels.

**onnxsim**: `l1`, `l2` and `wanda` (norm of weights times activations), one sparsity for all layers or `-global`. It
leaves the trunk as it is. Its own recoveries come after a `+`: `finetune` (`apply_pruning_finetune`), `bn`
(`recover_batch_norm` towards the original), `bn-in-turn` (its parts, one norm after the other), `blocks`
(`apply_block_finetune_all_blocks`). To be trained (not after a recovery), the ONNX becomes a torch network of
the same outputs.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cifar
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

#: Halvings of the interval of ratios: finer than one channel of 64 in every layer.
HALVINGS = 12
#: Images that go through a network at a time when a tool looks at them.
BATCH = 128
#: Ratio at which the whole network is tried before the trunk is given up.
TRIED = 0.3
#: Largest difference between the outputs of an ONNX file and of the torch network made of it.
SAME = 1e-3
#: What is installed under which name, for the message that it is not.
MODULES = {"torch-pruning": "torch_pruning", "onnxsim": "onnxsim"}


@dataclass(frozen=True)
class Pruned:
    """What a tool came to."""

    #: A torch module or an ONNX file.
    network: Any
    remark: str
    seconds: float


@dataclass(frozen=True)
class Point:
    """What is printed; fractions are of the original, `seconds` and `peak_mb` of the compression."""

    tool: str
    criterion: str
    model: str
    asked: float
    macs: float
    params: float
    accuracy: float
    before: float
    minutes: float
    seconds: float
    peak_mb: float
    remark: str


def closest(fraction: Callable[[float], float], asked: float) -> float:
    """The ratio whose fraction of MACs is closest to the one asked for.

    Halves the interval from 0 to 1 whichever way brings the fraction closer: fractions fall as ratios rise.
    """
    low, high = 0.0, 1.0
    tried: dict[float, float] = {}
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        tried[ratio] = fraction(ratio)
        low, high = (ratio, high) if tried[ratio] > asked else (low, ratio)
    return min(tried, key=lambda ratio: abs(tried[ratio] - asked))


# Torch-Pruning


def importances() -> dict[str, Callable[[], Any]]:
    """Its criteria by our names."""
    from torch_pruning.pruner import importance as tp

    return {
        "l1": lambda: tp.MagnitudeImportance(p=1),
        "l2": lambda: tp.MagnitudeImportance(p=2),
        "taylor": tp.TaylorImportance,
        "fpgm": tp.FPGMImportance,
        "random": tp.RandomImportance,
    }


def gradients(module: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The gradient of the mean cross-entropy for every parameter."""
    module.zero_grad()
    for batch, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        (F.cross_entropy(module(batch), wanted, reduction="sum") / len(images)).backward()
    return [parameter.grad for parameter in module.parameters()]


def torch_pruning(data: Path, model: str, criterion: str, asked: float) -> Pruned:
    """A network cut by Torch-Pruning."""
    from torch_pruning.pruner import BasePruner

    original = cifar.network(data, model)
    base, _, scope = criterion.partition("-")
    images, labels = cifar.calibration_set(data) if base == "taylor" else (None, None)
    all_macs, _ = cifar.torch_cost(original)
    start = time.perf_counter()
    slopes = gradients(original, images, labels) if base == "taylor" else None

    def cut(ratio: float, trunk: bool) -> nn.Module:
        module = copy.deepcopy(original)
        for parameter, slope in zip(module.parameters(), slopes or (), strict=slopes is not None):
            parameter.grad = slope.clone()  # a copy of a parameter has none
        ends = [] if trunk else [module.conv1, *(block.conv2 for block in module.blocks())]
        torch.manual_seed(0)
        pruner = BasePruner(
            module, torch.zeros(1, 3, 32, 32), importances()[base](),
            global_pruning=scope == "global", pruning_ratio=ratio, ignored_layers=[module.linear, *ends],
        )  # fmt: skip
        pruner.step()
        module.zero_grad()
        return module

    refused = refusal(lambda: cifar.torch_cost(cut(TRIED, True)))
    whole = refused is None
    made = cut(closest(lambda ratio: cifar.torch_cost(cut(ratio, whole))[0] / all_macs, asked), whole)
    remarks = ["one ranking of all channels" if scope else "one ratio for all layers"]
    if refused:
        remarks.append(f"channels inside of blocks alone; on the whole network {refused}")
    elif len(made.conv1.weight) == len(original.conv1.weight):
        remarks.append("given the whole network, it cut inside of blocks alone")
    if base == "taylor":
        remarks.append(f"gradients of {len(images)} labelled training images")
    return Pruned(made, "; ".join(remarks), time.perf_counter() - start)


def refusal(attempt: Callable[[], object]) -> str | None:
    """What an attempt raises, in a line."""
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


# onnxsim


def onnxsim(data: Path, model: str, criterion: str, asked: float) -> Pruned:
    """A network cut by onnxsim, and recovered by it if the criterion says so."""
    import onnxsim as tool

    how, _, recovery = criterion.partition("+")
    base, _, scope = how.partition("-")
    original = onnx.load(data / "models" / f"{model}.onnx")
    looks = base == "wanda" or bool(recovery)
    images = cifar.calibration_set(data)[0] if looks else torch.zeros(0)
    batches = [{original.graph.input[0].name: batch.numpy()} for batch in images.split(BATCH)]
    all_macs, _ = cifar.onnx_cost(original)
    start = time.perf_counter()

    def cut(sparsity: float, seen: Sequence[dict[str, Any]]) -> onnx.ModelProto:
        if base == "wanda":
            return tool.apply_structured_wanda_pruning(
                original, calibration_data=seen, sparsity=sparsity, global_sparsity=scope == "global"
            )
        return tool.apply_structured_pruning(original, sparsity, base, global_sparsity=scope == "global")

    # with one sparsity for all layers, the widths are the same whatever the images say
    few = batches if scope else [{name: batch[:1] for name, batch in each.items()} for each in batches[:1]]
    made = cut(closest(lambda sparsity: cifar.onnx_cost(cut(sparsity, few))[0] / all_macs, asked), batches)
    remarks = ["one ranking of all channels" if scope else "one sparsity for all layers"]
    if recovery:
        made, said = RECOVERIES[recovery](original, made, batches)
        remarks.append(said)
    if looks:
        remarks.append(f"{len(images)} training images without labels")
    return Pruned(made, "; ".join(remarks), time.perf_counter() - start)


def finetuned(original: Any, pruned: Any, batches: Sequence[dict[str, Any]]) -> tuple[Any, str]:
    """Its closed-form fit of matrix products."""
    import onnxsim as tool

    made = tool.apply_pruning_finetune(original, pruned, calibration_data=batches)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in pruned.graph.initializer}
    changed = [t.name for t in made.graph.initializer if not np.array_equal(before[t.name], numpy_helper.to_array(t))]
    return made, f"apply_pruning_finetune changed {len(changed)} tensors"


def same_width(original: Any, pruned: Any) -> list[str]:
    """Outputs of the convolutions that have as many channels as before: elsewhere its batch norms have no target."""
    before, now = ({tensor.name: list(tensor.dims)[:1] for tensor in m.graph.initializer} for m in (original, pruned))
    convs = [node for node in pruned.graph.node if node.op_type == "Conv"]
    return [node.output[0] for node in convs if before[node.input[1]] == now[node.input[1]]]


def renormed(original: Any, pruned: Any, batches: Sequence[dict[str, Any]]) -> tuple[Any, str]:
    """Its batch norms, fitted to the statistics of the original in one call."""
    import onnxsim as tool

    whole = same_width(original, pruned)
    made = tool.recover_batch_norm(pruned, whole, calibration_data=batches, target_model=original)
    return made, f"recover_batch_norm behind {len(whole)} convolutions"


def renormed_in_turn(original: Any, pruned: Any, batches: Sequence[dict[str, Any]]) -> tuple[Any, str]:
    """The same, one norm after the other: fitted at once, each corrects errors that those before it have corrected."""
    import onnxsim as tool
    from onnxsim.bn_recovery import insert_identity_bn

    made, norms = insert_identity_bn(pruned, same_width(original, pruned))
    for norm in norms:
        made = tool.calibrate_recovered_bn(made, batches, target_model=original, node_names=[norm.node_name])
    return made, f"calibrate_recovered_bn behind {len(norms)} convolutions, one after the other"


def in_blocks(original: Any, pruned: Any, batches: Sequence[dict[str, Any]]) -> tuple[Any, str]:
    """Its training of blocks on the activations of the original, all settings its defaults but for the batch.

    onnxsim 0.8.1 takes the shapes inside of a block from the original, so a block that lost channels cannot be trained.
    """
    import onnxsim as tool

    made, results = tool.apply_block_finetune_all_blocks(original, pruned, calibration_data=batches, batch_size=BATCH)
    reasons = [result.skipped_reason for result in results if not result.trained]
    said = f"apply_block_finetune_all_blocks trained {len(results) - len(reasons)} of {len(results)} blocks"
    return made, f"{said} ({reasons[0]})" if reasons else said


#: What comes after the `+` -> (original, pruned, images) -> (recovered, what it did).
RECOVERIES: dict[str, Callable[[Any, Any, Sequence[dict[str, Any]]], tuple[Any, str]]] = {
    "finetune": finetuned,
    "bn": renormed,
    "bn-in-turn": renormed_in_turn,
    "blocks": in_blocks,
}


def to_torch(original: onnx.ModelProto, pruned: onnx.ModelProto, module: cifar.ResNet) -> cifar.ResNet:
    """The torch network of a pruned ONNX file: `module` with the channels that the file still has.

    Weights are only sliced by the pruning, so a filter is known by its values. The norms are those of the network, not
    folded: training works with them. The outputs have to be those of the file.
    """
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (original, pruned))
    state, inner = module.state_dict(), {}
    for name, part in module.named_modules():
        if isinstance(part, cifar.Block):
            kept = rows(before[f"{name}.conv1.weight"], after[f"{name}.conv1.weight"])
            inner[name] = len(kept)
            for key in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"):
                state[f"{name}.{key}"] = state[f"{name}.{key}"][kept]
            state[f"{name}.conv2.weight"] = state[f"{name}.conv2.weight"][:, kept]
    made = cifar.ResNet(len(module.layer1), inner).eval()
    made.load_state_dict(state)
    shown = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    difference = (cifar.torch_logits(made)(shown) - cifar.onnx_logits(pruned)(shown)).abs().max().item()
    if difference > SAME:
        raise ValueError(f"the torch network made of the ONNX differs from it by {difference:.1e}")
    return made


def rows(whole: np.ndarray, part: np.ndarray) -> list[int]:
    """Which rows of an array another one has, in order."""
    found: list[int] = []
    for i, row in enumerate(whole):
        if len(found) < len(part) and np.array_equal(row, part[len(found)]):
            found.append(i)
    if len(found) < len(part):
        raise ValueError("the pruned file has filters that the original has not")
    return found


# All of them

#: Tool -> how a network is cut by it.
TOOLS: dict[str, Callable[[Path, str, str, float], Pruned]] = {"torch-pruning": torch_pruning, "onnxsim": onnxsim}


def criteria(tool: str) -> list[str]:
    """All criteria of a tool, with its scopes and recoveries."""
    bases = ("l1", "l2", "taylor", "fpgm", "random") if tool == "torch-pruning" else ("l1", "l2", "wanda")
    rankings = [base + scope for base in bases for scope in ("", "-global")]
    recoveries = ["", *("+" + each for each in RECOVERIES)] if tool == "onnxsim" else [""]
    return [ranking + recovery for ranking in rankings for recovery in recoveries]


def measure(data: Path, tool: str, criterion: str, model: str, asked: float, minutes: float) -> Point:
    """Cut, train if asked to, and judge."""
    pruned = TOOLS[tool](data, model, criterion, asked)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    made, remark = pruned.network, pruned.remark
    network, file = cifar.network(data, model), onnx.load(data / "models" / f"{model}.onnx")
    whole = cifar.torch_cost(network)
    assert cifar.onnx_cost(file) == whole, "the two ways of counting have to be one"
    if minutes:
        made = to_torch(file, made, network) if isinstance(made, onnx.ModelProto) else made
        images, _ = cifar.calibration_set(data)
        epochs = cifar.distil(made, network, images, minutes)
        remark += f"; distilled for {epochs} epochs of {len(images)} training images without labels"
    is_onnx = isinstance(made, onnx.ModelProto)
    macs, params = (cifar.onnx_cost if is_onnx else cifar.torch_cost)(made)
    judges = cifar.test_set(data)
    after = cifar.accuracy((cifar.onnx_logits if is_onnx else cifar.torch_logits)(made), *judges)
    before = cifar.accuracy(cifar.torch_logits(network), *judges)
    fractions = (round(value, 4) for value in (macs / whole[0], params / whole[1], after, before))
    return Point(tool, criterion, model, asked, *fractions, minutes, round(pruned.seconds, 2), round(peak), remark)


def settings() -> argparse.Namespace:
    """What the command line says; ends the process where it says nothing that can be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", choices=list(TOOLS))
    parser.add_argument("--criterion")
    parser.add_argument("--model", choices=list(cifar.BLOCKS), default="resnet20")
    parser.add_argument("--macs", type=float, default=0.5, help="fraction of the MACs to keep")
    parser.add_argument("--minutes", type=float, default=0.0, help="time of training after the cut")
    parser.add_argument("--data", type=Path, default=Path(cifar.DATA))
    parser.add_argument("--list", action="store_true", help="print the tools and their criteria")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(f"{tool} {criterion}" for tool in TOOLS for criterion in criteria(tool)))
        sys.exit()
    if not chosen.tool or chosen.criterion not in criteria(chosen.tool):
        parser.error("--tool and one of its criteria: see --list")
    if not 0 < chosen.macs <= 1:
        parser.error(f"--macs {chosen.macs}: a fraction above 0 and at most 1")
    if chosen.minutes and "+" in chosen.criterion:
        parser.error("--minutes trains what was cut: choose a criterion without the tool's own recovery")
    if importlib.util.find_spec(MODULES[chosen.tool]) is None:
        parser.exit(2, f'{chosen.tool} is not installed: pip install -c constraints.txt -e ".[bench]"\n')
    if (path := cifar.missing(chosen.data)) is not None:
        parser.exit(2, f"{path} is not there: --data names the folder with cifar10 and models\n")
    return chosen


def main() -> None:
    """Measure one point."""
    chosen = settings()
    warnings.filterwarnings("ignore")  # of the tools; what matters is in the remark
    point = measure(chosen.data, chosen.tool, chosen.criterion, chosen.model, chosen.macs, chosen.minutes)
    print(json.dumps(asdict(point)))


if __name__ == "__main__":
    main()
