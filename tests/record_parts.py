"""A value of every format that quantplan writes, as it stands in tests/golden/records."""

import math
from dataclasses import replace
from pathlib import Path

from quantplan.cache_sensitivity import CachePair, CacheSensitivity, ChosenCache
from quantplan.comparison import Comparison, Gap, Row
from quantplan.convert.conversion import Conversion
from quantplan.measurement import PERCENTILES, Conditions, Estimate, Measurement
from quantplan.plan import ImatrixUse, Limit, Outcome, Plan, PlannedTensor, RoundingUse
from quantplan.quant_type import BY_NAME
from quantplan.run_record import (
    EvaluatedFile,
    Gain,
    LeaderTest,
    RefinementRecord,
    RefineRound,
    RunRecord,
    ValidatedFile,
)
from quantplan.sensitivity.matrix_inputs import MatrixInput
from quantplan.sensitivity.moment_files import Index
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable
from quantplan.task_score import MULTIPLE_CHOICE, TaskConditions, TaskScore
from quantplan.throughput import SpeedConditions, SpeedTest, Throughput

GOLDEN = Path(__file__).parent / "golden" / "records"

PLAN = Plan(
    model_path="models/m.gguf",
    model_name="M",
    model_digest="d" * 64,
    tensors=(
        PlannedTensor("token_embd.weight", BY_NAME["Q6_K"], 2100, True),
        PlannedTensor("blk.0.attn_norm.weight", BY_NAME["F32"], 1024, False),
        PlannedTensor("blk.0.attn_v.weight", BY_NAME["IQ4_XS"], 136, True, compensated=True),
    ),
    base_ftype="Q6_K",
    metadata_bytes=4096,
    file_bytes=7456,
    budget_bytes=8000,
    budget_asked="8000",
    imatrix=ImatrixUse("imatrix/i.gguf", "e" * 64, None, 12, 40),
    predicted_kld=0.0125,
    predicted_kld_err=0.001,
    calibrated=True,
    outcome=Outcome("optimal", 0.0125, 0.0124, 0.008, 1.5, "tail", {"file size": 1e-9}),
    layer_types=((0, "Q4_K_M"),),
    flags="--output-tensor-type Q6_K",
    limits=(Limit("VRAM", "bytes", 1 << 30, 9 << 26),),
    on_cpu=(r"^blk\.0\.ffn_.*_exps",),
    predicted_tps={"generation": 12.5, "generation_err": 0.25},
    tensor_split=(1, 1),
    cache=ChosenCache("q8_0,q5_1", Estimate(0.001, 0.0001), 32768, 4096),
    rounding=RoundingUse("t" * 64, 512, 128),
    stock_rounding_kld=0.02,
    made_from={"wishes": ["--min output=Q6_K"], "damage_table": None, "alpha": {"k": 1.5}},
)
UNPREDICTED = Plan("m.gguf", "M", "d" * 64, PLAN.tensors[:1], "Q6_K", 64, 2164)

SENSITIVITIES = SensitivityTable(
    "d" * 64,
    {
        "token_embd.weight": SensitivityRow(
            "token_embd.weight", {"Q4_K": 0.01, "Q6_K": 0.001}, {"Q4_K": 1e-4}, 0.1, "probed", {"Q4_K": 0.02}
        ),
        "output.weight": SensitivityRow("output.weight", {"Q4_K": 0.0}),
    },
    Interaction(1.1, 1.9, 0.05),
    "cpu",
    True,
    {"windows": 8, "types": ["Q4_K", "Q6_K"]},
    architecture="qwen3",
    shapes={"token_embd.weight": (256, 512), "output.weight": (256, 512)},
)

CONVERSION = Conversion(
    "Tuned", "s" * 64, "LlamaForCausalLM", "llama-cpp-python 0.3.36", "auto", "Tuned-BF16.gguf", 7456, 3, "d" * 64
)

SECOND_MOMENTS = Index(
    {"model": "d" * 64, "text": "t" * 64, "n_ctx": 512, "chunks": 128},
    (MatrixInput(("blk.0.attn_q.weight", "blk.0.attn_v.weight"), 256, 1, False, 1.0),),
)

CONDITIONS = Conditions(
    "t" * 64, 512, 3, "b" * 64, "in-process", "cpu", "llama-cpp-python 0.3.36", cache_types="q8_0,q5_1"
)
CACHE_SENSITIVITY = CacheSensitivity(
    "d" * 64,
    4096,
    (CachePair("q8_0", Estimate(1e-5, 1e-6)), CachePair("f16,q4_0", Estimate(0.003, None))),
    replace(CONDITIONS, cache_types="f16"),
)
MEASUREMENT = Measurement(
    file="m-Q4_K_M.gguf",
    model_digest="c" * 64,
    file_bytes=7456,
    bpw=4.85,
    conditions=CONDITIONS,
    notes=("a note",),
    bytes_per_token=7000,
    ppl=Estimate(10.5, 0.25),
    base_ppl=Estimate(10.25, None),
    ln_ppl_ratio=Estimate(0.01, 0.002),
    ppl_correlation=0.99,
    kld=Estimate(0.0125, 0.0005),
    kld_chunk_err=0.001,
    kld_median=0.005,
    kld_maximum=1.5,
    kld_percentiles={percent: percent / 100 for percent in PERCENTILES},
    delta_p=Estimate(-0.1, 0.05),
    rms_dp=Estimate(3.5, 0.1),
    same_top=Estimate(94.5, 0.5),
    per_chunk_kld=(0.01, 0.015, 0.0125),
    per_chunk_nll=(2.25, 2.5, 2.375),
    per_chunk_base_nll=(2.24, 2.48, 2.37),
)
OF_VERSION_1 = replace(MEASUREMENT, bytes_per_token=None, conditions=replace(CONDITIONS, cache_types="f16"))
UNMEASURED = Measurement(
    **{
        **vars(MEASUREMENT),
        "base_ppl": None,
        "delta_p": None,
        "kld_percentiles": dict.fromkeys(PERCENTILES),
        "kld_median": None,
        "per_chunk_kld": (),
        "per_chunk_nll": (),
        "per_chunk_base_nll": (),
    }
)

TASK_SCORE = TaskScore(
    task="arc",
    file="m-Q4_K_M.gguf",
    model_digest="c" * 64,
    file_bytes=7456,
    outcomes=(True, False, True, True),
    conditions=TaskConditions(MULTIPLE_CHOICE, "a" * 64, 4, 512, "cpu", "b1234"),
    notes=("by chance",),
)
THROUGHPUT = Throughput(
    file="m-Q4_K_M.gguf",
    model_digest="c" * 64,
    file_bytes=7456,
    tests=(SpeedTest("pp512", (300.0, 310.0)), SpeedTest("tg128", (30.5,))),
    conditions=SpeedConditions("a processor", "CPU", 2, 0, 2, "b1234"),
)
COMPARISON = Comparison(
    rows=(
        Row(
            name="plan",
            measurement=MEASUREMENT,
            tasks=(TASK_SCORE,),
            throughput=THROUGHPUT,
            blocks=12,
            elements=1000,
            kld_ratio=1.0,
            low=1.0,
            high=1.0,
            size_difference=0.0,
            shrinkage=0.75,
        ),
        Row(
            name="Q4_K_M",
            measurement=UNMEASURED,
            kld_ratio=math.inf,
            low=0.9,
            high=math.inf,
            size_difference=0.01,
            gaps={"kld": Gap(0.001, -0.001, math.inf, False, 40), "arc": Gap(1.5, 0.5, 2.5, True)},
        ),
    ),
    verdict="The plan is better.",
    reference="m.gguf (29.8 kB)",
    sorted_by="kld",
)

RUN = RunRecord(
    budget="Q4_K_M",
    budget_bytes=8000,
    file="m-q4_k_m.gguf",
    file_bytes=7456,
    bpw=4.5,
    kld=Estimate(0.0125, 0.001),
    ppl=Estimate(7.5, None),
    is_stock_quant=True,
    kept="Q4_K_M",
    reason="the plan is not significantly better",
    evaluated=(
        EvaluatedFile("plan", 7400, 0.01, 1.0, 1.0, 1.0),
        EvaluatedFile("Q4_K_M", 7456, 0.0125, 0.8, 0.6, None),
    ),
    refinement=RefinementRecord(
        measured=(ValidatedFile("plan", 7400, 0.011, 0.0105), ValidatedFile("Q4_K_M", 7456, None, 0.0125)),
        rounds=(RefineRound("round 1", -0.02, True, 0.25, {"q": 0.1, "bits": -0.05}, {"q": 0.01, "bits": 0.02}),),
        leader="round 1",
        test=LeaderTest(-0.0002, 0.0001, -0.0004, 0.0, 0.04),
        counts=True,
        withdrawn=False,
        kld_before=0.0102,
        gain=Gain(0.98, 0.97, 0.99),
    ),
)
