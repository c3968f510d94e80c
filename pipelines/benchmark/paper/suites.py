"""The paper's tables: which systems stand in which row, beside the published figures."""

from dataclasses import dataclass, field

# Metric names as the runs store them, and as the tables print them.
COLUMNS = {
    "precision": "Precision",
    "recall": "Recall",
    "tag_f1": "TAG-F1",
    "cls_f1": "CLS-F1",
    "accuracy": "Accuracy",
}


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    system: str
    label: str
    published: dict[str, float] = field(default_factory=dict)
    """In percent, on MEPAVE (Tables 1 to 4) or MAE (Table 5)."""
    ours: bool = False
    """Whether the paper proposes it; the others are baselines."""


@dataclass(frozen=True)
class Suite:
    """One table or figure."""

    name: str
    title: str
    metrics: tuple[str, ...]
    """The last one decides: gains, bootstrap and plot are about it."""
    rows: tuple[Row, ...]
    benchmark: str = "MEPAVE"


def _tag(value: float) -> dict[str, float]:
    return {"tag_f1": value}


def _both(cls: float, tag: float) -> dict[str, float]:
    return {"cls_f1": cls, "tag_f1": tag}


def _all(precision: float, recall: float, tag: float) -> dict[str, float]:
    return {"precision": precision, "recall": recall, "tag_f1": tag}


TABLE1 = Suite(
    "table1",
    "Table 1: unified learning (ULS) and text-guided information range minimisation (TIR)",
    ("tag_f1",),
    (
        Row("m_jave_bert", "Fixed: M-JAVE", _tag(87.17)),
        Row("uls_l_second", "ULS-L: second text encoder (paper: BERT)", _tag(94.88)),
        Row("uls_l", "ULS-L: text encoder (paper: RoBERTa)", _tag(95.21)),
        Row("m_jave_uls", "ULS-VL: M-JAVE", _tag(95.40)),
        Row("uls_vl", "ULS-VL: Vanilla", _tag(95.05)),
        Row("uls_vl_self_attention", "ULS-VL: Self-Attn", _tag(94.89)),
        Row("uls_vl_tir", "ULS-VL: TIR", _tag(96.35), ours=True),
        Row("uls_vl_tir_aligned", "ULS-VL: TIR, aligned (not in the paper)", ours=True),
    ),
)
TABLE2 = Suite(
    "table2",
    "Table 2: key components",
    ("precision", "recall", "tag_f1"),
    (
        Row("uls_vl", "ULS-VL", _all(94.04, 96.07, 95.05)),
        Row("uls_vl_par", "+PAR", _all(94.99, 96.71, 95.84), ours=True),
        Row("uls_vl_tir", "+TIR", _all(95.21, 97.52, 96.35), ours=True),
        Row("uls_dram", "+TIR+PAR", _all(95.89, 97.86, 96.86), ours=True),
        Row("uls_vl_tir_aligned", "+TIR, aligned (not in the paper)", ours=True),
        Row("uls_dram_aligned", "+TIR+PAR, aligned (not in the paper)", ours=True),
    ),
)
TABLE3 = Suite(
    "table3",
    "Table 3: variants of attribute range minimisation",
    ("cls_f1", "tag_f1"),
    (
        Row("uls_vl", "ULS-VL", _tag(95.05)),
        Row("uls_vl_tir", "+TIR", _tag(96.35)),
        Row("dynet_ar", "+TIR+DyNet-AR", _both(97.52, 96.07), ours=True),
        Row("bert_ar", "+TIR+BERT-AR", _both(97.54, 96.62), ours=True),
        Row("uls_dram", "+TIR+Prototype-AR", _both(97.65, 96.86), ours=True),
    ),
)
TABLE4 = Suite(
    "table4",
    "Table 4: comparison on attribute and value extraction",
    ("cls_f1", "tag_f1"),
    (
        Row("suopentag", "SUOpenTag", _tag(77.12)),
        Row("rnn_lstm", "RNN-LSTM", _both(85.76, 82.92)),
        Row("attn_birnn", "Attn-BiRNN", _both(86.10, 83.28)),
        Row("slot_gated", "Slot-Gated", _both(86.70, 83.35)),
        Row("joint_bert", "Joint-BERT", _both(86.93, 83.73)),
        Row("jave_lstm", "JAVE-LSTM", _both(87.88, 84.09)),
        Row("jave_bert", "JAVE-BERT", _both(87.98, 84.78)),
        Row("kplug", "K-PLUG* (extra data)", _tag(95.97)),
        Row("m_jave_lstm", "M-JAVE-LSTM", _both(90.19, 86.41)),
        Row("m_jave_bert", "M-JAVE-BERT", _both(90.69, 87.17)),
        Row("opentag", "OpenTag (not in the paper's table)"),
        Row("spacy", "spaCy NER (not in the paper)"),
        Row("uls_dram", "ULS-DRAM", _both(97.65, 96.86), ours=True),
        Row("uls_dram_aligned", "ULS-DRAM, aligned (not in the paper)", ours=True),
    ),
)
TABLE5 = Suite(
    "table5",
    "Table 5: comparison by MAE accuracy",
    ("accuracy",),
    (
        Row("mae_model", "MAE-model", {"accuracy": 72.96}),
        Row("m_jave_bert", "M-JAVE", {"accuracy": 75.01}),
        Row("uls_dram", "ULS-DRAM", {"accuracy": 79.20}, ours=True),
        Row("uls_dram_aligned", "ULS-DRAM, aligned (not in the paper)", ours=True),
    ),
    benchmark="MAE",
)
FIG8 = Suite(
    "fig8",
    "Figure 8: TAG-F1 against the range threshold S_thr",
    ("tag_f1",),
    (Row("uls_dram", "ULS-DRAM", ours=True),),
)
SUITES = {suite.name: suite for suite in (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, FIG8)}
# Systems that know attributes by their names, so that new ones can be asked for.
ZERO_SHOT = (
    Row("bert_ar", "ULS-VL + TIR + BERT-AR", ours=True),
    Row("suopentag", "SUOpenTag"),
)


def chosen_suites(name: str) -> list[Suite]:
    """Return the suites that `--suite` names."""
    if name == "all":
        return list(SUITES.values())
    if name not in SUITES:
        raise ValueError(f"found suite {name!r}, expected all or one of {', '.join(SUITES)}")
    return [SUITES[name]]


def systems_of(suites: list[Suite]) -> list[str]:
    """Return every system that stands in one of the suites, once, in order."""
    return list(dict.fromkeys(row.system for suite in suites for row in suite.rows))
