"""What llama.cpp assumes about the blocks of each architecture: which it distinguishes by position, which by metadata.

Read from ``src/models/*.cpp`` (``load_arch_hparams``, ``load_arch_tensors`` and the graphs), ``src/llama-model.cpp`` and
``src/llama-hparams.cpp`` of the llama.cpp in llama-cpp-python 0.3.36. An architecture that is not listed is unknown: newer than
that, or not a model that generates text. Keys are written without the architecture in front of them.
"""

from dataclasses import dataclass

_CHUNK, _CHUNKS = "attention.sliding_window", "attention.sliding_window_pattern"


@dataclass(frozen=True, slots=True)
class Cycle:
    """Every ``period``-th block is ``nth``, the others are ``others``: decided by position alone.

    ``key`` sets the period, where there is one; an array ``array`` with an item per block, not zero for ``others``, takes its
    place and moves with the blocks. ``when``: (key, value where it is missing), above zero where blocks differ at all.
    ``first``: the nth block comes first in its period. ``blocks``: only in a model of that many blocks.
    """

    others: str
    nth: str
    period: int
    key: str | None = None
    array: str | None = None
    when: tuple[str, int] | None = None
    first: bool = False
    blocks: int | None = None

    def kind(self, position: int, period: int) -> str:
        odd = 0 if self.first else period - 1
        return self.nth if position % period == odd else self.others


@dataclass(frozen=True, slots=True)
class Lead:
    """The first blocks, their number in ``key``, are ``leading``, all others ``rest``."""

    key: str
    leading: str
    rest: str


@dataclass(frozen=True, slots=True)
class ArchitectureItem:
    """An array with an item per block distinguishes them: it moves with the blocks, so any order is right."""

    key: str
    zero: str
    other: str


# llama.cpp makes a store for each of these, and aborts where no block remains that uses it (llama-model.cpp,
# create_memory: is_swa_any; llama-memory-hybrid.cpp)
_STORES = (frozenset({"sliding"}), frozenset({"chunked"}), frozenset({"recurrent"}), frozenset({"attention"}))


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of one architecture. ``Rules()``: llama.cpp treats all blocks alike, except for arrays in the metadata.

    ``halved``: key of the number of blocks after which activations are halved, with weights that allow for it. ``opens``: what
    only the first block does. ``placed``: (kind, why) of blocks that cannot leave their place. ``listed``: (key of an array of
    block numbers, what those blocks are). ``first_not``: kinds that need a block before them. ``stays``: kinds of which one
    block must stay where there is any. ``refused``: why no map is possible; ``refused_with``: (key, why) where it is above
    zero; ``refused_without``: (array, key, number, why) where that array is missing and the key is at least the number.
    """

    cycles: tuple[Cycle, ...] = ()
    leads: tuple[Lead, ...] = ()
    items: tuple[ArchitectureItem, ...] = ()
    halved: str | None = None
    opens: str | None = None
    placed: tuple[str, str] | None = None
    listed: tuple[str, str] | None = None
    first_not: tuple[str, ...] = ()
    stays: tuple[frozenset[str], ...] = _STORES
    refused: str | None = None
    refused_with: tuple[tuple[str, str], ...] = ()
    refused_without: tuple[str, str, int, str] | None = None


def _sliding(period: int, optional: bool = False, first: bool = False, blocks: int | None = None) -> Cycle:
    """llama_model_base::load_swa_pattern; ``optional``: without a window all blocks see the whole context."""
    when = (_CHUNK, 0) if optional else None
    return Cycle("sliding", "full", period, _CHUNKS, _CHUNKS, when, first, blocks)


def _hybrid(period: int) -> Cycle:
    """Blocks that carry a state instead of a cache; an array may say which (newer files)."""
    return Cycle("recurrent", "attention", period, "full_attention_interval", "attention.recurrent_layers")


def _rope(when: tuple[str, int] | None = None, first: bool = False) -> Cycle:
    """llama_hparams::n_no_rope_layer_step, which no key sets."""
    return Cycle("rope", "no rope", 4, when=when, first=first)


_DENSE = Lead("leading_dense_block_count", "dense", "MoE")
_STATE = ArchitectureItem("attention.head_count_kv", "recurrent", "attention")
_ATTENTION = ArchitectureItem("attention.head_count_kv", "no attention", "attention")
_NETWORK = ArchitectureItem("feed_forward_length", "no feed-forward", "feed-forward")
_SLIDES = ArchitectureItem(_CHUNKS, "full", "sliding")
_INDEXED = ArchitectureItem("attention.indexer.types", "shared indexer", "indexer")
_NEEDS_FULL = "shared indexer"  # it takes the choice of the block before

# openelm, apertus, hy_v3: with arrays, or with tensors that only some blocks have: both move along
_UNIFORM = (
    "llama",
    "llama-embed",
    "maincoder",
    "talkie",
    "falcon",
    "grok",
    "gpt2",
    "gptneox",
    "mpt",
    "baichuan",
    "starcoder",
    "refact",
    "bloom",
    "stablelm",
    "qwen",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "qwen3vl",
    "qwen3vlmoe",
    "phi2",
    "phi3",
    "phimoe",
    "plamo",
    "codeshell",
    "orion",
    "internlm2",
    "minicpm",
    "minicpm3",
    "gemma",
    "starcoder2",
    "mamba",
    "mamba2",
    "falcon-h1",
    "xverse",
    "command-r",
    "dbrx",
    "olmo",
    "olmoe",
    "openelm",
    "arctic",
    "chatglm",
    "glm4",
    "bitnet",
    "jais",
    "jais2",
    "nemotron",
    "exaone",
    "rwkv6qwen2",
    "granite",
    "granitemoe",
    "graniteswitch",
    "chameleon",
    "plm",
    "bailingmoe",
    "arcee",
    "ernie4_5",
    "paddleocr",
    "hunyuan-moe",
    "hunyuan-dense",
    "hunyuan_vl",
    "hy_v3",
    "dream",
    "llada",
    "llada-moe",
    "seed_oss",
    "grovemoe",
    "apertus",
    "minimax-m2",
    "cogvlm",
    "rnd1",
    "pangu-embedded",
    "mistral3",
    "nanbeige",
)

RULES: dict[str, Rules] = {
    **dict.fromkeys(_UNIFORM, Rules()),
    # a state in most blocks, attention in every nth: qwen35.cpp, qwen35moe.cpp, qwen3next.cpp, minimax-01.cpp
    **dict.fromkeys(("qwen35", "qwen35moe", "qwen3next"), Rules((_hybrid(4),))),
    "minimax-01": Rules((_hybrid(8),), placed=("recurrent", "its states decay by 1 - place / (layers - 1)")),
    # with one block of n-gram embeddings, named by its number: qwen4exp.cpp
    "qwen4exp": Rules((_hybrid(4),), listed=("ple.layers", "n-gram embeddings")),
    # a window in most blocks: gemma2.cpp, gemma3.cpp, cohere2.cpp, openai-moe.cpp, olmo2.cpp, plamo3.cpp, mellum.cpp,
    # muse-glimmer.cpp
    "gemma2": Rules((_sliding(2),)),
    "gemma3": Rules((_sliding(6, optional=True),)),
    "cohere2": Rules((_sliding(4),)),
    "gpt-oss": Rules((_sliding(2),)),
    "olmo2": Rules((_sliding(4, optional=True),)),
    "plamo3": Rules((_sliding(8, optional=True),)),
    "mellum": Rules((_sliding(4, optional=True),)),
    "muse-glimmer": Rules((_sliding(4),)),
    "exaone4": Rules((_sliding(4, blocks=64),)),  # exaone4.cpp: only the 32B, known by its number of blocks
    # and dense blocks in front: exaone-moe.cpp, afmoe.cpp, cohere2moe.cpp, laguna.cpp
    "exaone-moe": Rules((_sliding(4),), (_DENSE,)),
    "afmoe": Rules((_sliding(4, optional=True), _rope()), (_DENSE,)),
    "cohere2moe": Rules((_sliding(4, first=True),), (_DENSE,)),
    "laguna": Rules((_sliding(4, optional=True, first=True),), (_DENSE,)),
    # blocks without rotary positions: smollm3.cpp, smallthinker.cpp, llama4.cpp
    "smollm3": Rules((_rope(),)),
    "smallthinker": Rules((_sliding(4, optional=True, first=True), _rope((_CHUNK, 0), first=True))),
    "llama4": Rules(
        (
            Cycle("chunked", "full", 4, _CHUNKS, _CHUNKS, (_CHUNK, 1)),
            _rope((_CHUNK, 1)),
            Cycle("dense", "MoE", 0, "interleave_moe_layer_step"),
        )
    ),
    # experts in every nth block after the dense ones: ernie4-5.cpp, ernie4-5-moe.cpp
    "ernie4_5-moe": Rules((Cycle("dense", "MoE", 0, "interleave_moe_layer_step"),), (_DENSE,)),
    # dense blocks in front: deepseek.cpp, deepseek2.cpp, ..., glm4-moe.cpp, dots1.cpp, bailingmoe2.cpp, minimax-m3.cpp
    **dict.fromkeys(
        (
            "deepseek",
            "deepseek2",
            "deepseek2-ocr",
            "deepseek32",
            "mistral4",
            "glm4moe",
            "dots1",
            "bailingmoe2",
            "minimax-m3",
        ),
        Rules(leads=(_DENSE,)),
    ),
    # arrays say which blocks have a state: jamba.cpp, granite-hybrid.cpp, plamo2.cpp, lfm2.cpp, lfm2moe.cpp, kimi-linear.cpp,
    # bailingmoe3.cpp
    **dict.fromkeys(("jamba", "granitehybrid", "plamo2", "lfm2"), Rules(items=(_STATE,))),
    **dict.fromkeys(("lfm2moe", "kimi-linear", "bailingmoe3"), Rules(leads=(_DENSE,), items=(_STATE,))),
    # deci.cpp, nemotron-h.cpp: neither attention nor feed-forward is a recurrent block in the latter
    "deci": Rules(items=(_ATTENTION, _NETWORK)),
    **dict.fromkeys(
        ("nemotron_h", "nemotron_h_moe"),
        Rules(
            items=(_ATTENTION, _NETWORK),
            stays=(frozenset({"no attention", "no feed-forward"}), frozenset({"attention"})),
        ),
    ),
    # residuals of whole groups of blocks: kimi-k3.cpp
    "kimi-k3": Rules(
        (Cycle("inside a group", "opens a group", 0, "attn_res.block_size", first=True),), (_DENSE,), (_STATE,)
    ),
    # arrays say which blocks see a window: mimo2.cpp, step35.cpp, spark2-5.cpp, maple.cpp, granite-swa.cpp, gemma4.cpp,
    # dots3note.cpp
    **dict.fromkeys(("mimo2", "step35", "spark2_5", "maple", "granite_swa"), Rules(items=(_SLIDES,))),
    "dots3note": Rules(leads=(_DENSE,), items=(_SLIDES, _INDEXED)),
    "gemma4": Rules(
        items=(_SLIDES,),
        refused_with=(
            ("attention.shared_kv_layers", "its last layers use keys and values of earlier layers, by number"),
            ("embedding_length_per_layer_input", "each token has an embedding for each layer, by number"),
        ),
    ),
    # indexers, a block's own or that of the one before: glm-dsa.cpp (table GLM_5_2_DEFAULT_INDEXER_TYPES),
    # glm5-next.cpp, hy-v4.cpp
    "glm-dsa": Rules(
        leads=(_DENSE,),
        items=(_INDEXED,),
        first_not=(_NEEDS_FULL,),
        refused_without=(
            _INDEXED.key,
            "context_length",
            1 << 20,
            "llama.cpp has a table of its layers' indexers by number",
        ),
    ),
    "glm5-next": Rules(leads=(_DENSE,), items=(_STATE, _INDEXED), first_not=(_NEEDS_FULL,)),
    "hy_v4": Rules(leads=(_DENSE,), items=(_INDEXED,), first_not=(_NEEDS_FULL,)),
    # the first blocks choose experts by token: deepseek4.cpp
    "deepseek4": Rules(leads=(Lead("hash_layer_count", "hash-routed", "scored"),)),
    # rwkv6.cpp and the converter's rwkv.py, which divides weights by 2 ** (block // n); rwkv7-base.cpp
    "rwkv6": Rules(halved="rescale_every_n_layers"),
    **dict.fromkeys(("rwkv7", "arwkv7"), Rules(opens="gives all others its values")),
    # no map is possible
    "gemma3n": Rules(
        refused="layers from 20 on use the keys of earlier layers, and tokens have an embedding for each layer"
    ),
    "hrm_text": Rules(refused="its layer count is that of stacks run in loops (hrm.layers_per_stack, hrm.h_cycles)"),
    **dict.fromkeys(("t5", "t5encoder"), Rules(refused="encoder and decoder have separate layers")),
    **dict.fromkeys(
        ("gemma4-assistant", "eagle3", "dflash"), Rules(refused="a draft model that is bound to layers of its target")
    ),
    **dict.fromkeys(("wavtokenizer-dec", "qwen3tts", "pockettts", "clip"), Rules(refused="it does not generate text")),
}
