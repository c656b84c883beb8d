"""Speed tables made up by hand: time per weight is 1 or 2 ns in generation, a quarter of it in prompts."""

from model_parts import model_of

from quantplan.devices.speed.table import GENERATION, PROMPT, Overhead, Shape, Speed, SpeedTable, products
from quantplan.measurement import Estimate
from quantplan.quant_type import BY_NAME

Q4, Q8 = BY_NAME["Q4_0"], BY_NAME["Q8_0"]
DENSE = {
    "token_embd.weight": (64, 1000),
    "blk.0.attn_q.weight": (64, 64),
    "blk.0.ffn_up.weight": (64, 128),
    "blk.1.attn_q.weight": (64, 64),
    "blk.1.ffn_up.weight": (64, 128),
    "output.weight": (64, 1000),
}
MIXTURE = {
    "token_embd.weight": (64, 1000),
    "blk.0.ffn_up_exps.weight": (64, 32, 8),
    "blk.1.ffn_up_exps.weight": (64, 32, 8),
}
MIXTURE_KEYS = {"qwen3.expert_count": 8, "qwen3.expert_used_count": 2}


def speed(kind, shape, generation, prompt):
    return Speed(kind.name, shape, Estimate(generation, generation / 10), Estimate(prompt, prompt / 10), 1 << 20)


def table_of(model, *speeds, fixed=0.0, per_block=0.0, stderr=0.0):
    found = products(model, model.tensors)
    overhead = {batch: Overhead(fixed, per_block, stderr) for batch in (GENERATION, PROMPT)}
    stored = {name: model.by_name[name].type for name in found}
    blocks = model.main_blocks
    return SpeedTable("machine", "build", "cpu", 2, model.digest, blocks, found, speeds, overhead, stored)


def dense_table(**overhead):
    model = model_of(DENSE)
    shapes = (Shape(64, 64), Shape(64, 128), Shape(64, 1000))
    return table_of(
        model, *(speed(kind, shape, ns, ns / 4) for kind, ns in ((Q4, 1.0), (Q8, 2.0)) for shape in shapes), **overhead
    )


def types_of(kind, shapes=DENSE):
    return dict.fromkeys(shapes, kind)
