"""The CRF against pytorch-crf at the size of one batch of pairs, and at a large one."""

import torch
import torchcrf
from speed.report import Section
from speed.timing import interleaved, median, ratio
from speed.workbench import Workbench

from ulsdram_core.method.crf import CRF

TAGS = 3


def run(bench: Workbench) -> Section:
    """Decode and loss, equal parameters, ragged rows."""
    section = Section(
        "CRF, 3 tags", ("rows x units", "what", "ours ms", "pytorch-crf ms", "times faster")
    )
    for rows, units in ((96, 32), (1000, 128)):
        figures = _measure(section, rows, units, bench.sizes.rounds + 2)
        section.figures[f"{rows}x{units}"] = figures
    section.figures["crf_decode_vs_pytorch_crf"] = section.figures["1000x128"]["decode"]
    return section


def _measure(section: Section, rows: int, units: int, rounds: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    theirs, ours = torchcrf.CRF(TAGS, batch_first=True), CRF(TAGS, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    emissions = torch.randn(rows, units, TAGS, generator=generator)
    tags = torch.randint(TAGS, (rows, units), generator=generator)
    lengths = torch.randint(units // 4, units + 1, (rows, 1), generator=generator)
    mask = torch.arange(units) < lengths
    learned = emissions.clone().requires_grad_()
    assert ours.decode(emissions, mask) == theirs.decode(emissions, mask)

    def loss(crf: torchcrf.CRF) -> None:
        learned.grad = None
        crf.zero_grad()
        (-crf(learned, tags, mask, reduction="mean")).backward()

    calls = {
        "decode": lambda: ours.decode(emissions, mask),
        "pytorch-crf decode": lambda: theirs.decode(emissions, mask),
        "loss": lambda: loss(ours),
        "pytorch-crf loss": lambda: loss(theirs),
    }
    times = interleaved(calls, rounds)
    faster = {}
    for what in ("decode", "loss"):
        peer = f"pytorch-crf {what}"
        faster[what] = ratio(times, peer, what)
        spent = [1e3 * median(times[name]) for name in (what, peer)]
        section.rows.append((f"{rows} x {units}", what, *spent, faster[what]))
    return faster
