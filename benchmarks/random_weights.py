"""A base of Qwen3-VL-8B's shape with random weights, made on the device, and pages for it: speed and memory do not ask what weights say.

One thing is not random: which letter comes after which. Embeddings and output layer are set so that an answer is the alphabet, again and
again (A behind the prompt and behind an opening quote), by margins far above rounding. So every way to compute an answer gives the same
one, and a page can be made whose text layer says what the model will say.
"""

from __future__ import annotations

import io
import itertools
import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from extraction_assets.demo.tiny_base import model_config, special_token_ids, write_model, write_processor, write_tokenizer
from extraction_assets.documents.records import PageText, Word
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.model.base import Base, BaseFormat, _project_as_matmul, load_base_format
from extraction_assets.model.encoding import EncodedPage, PageEncoder, TextEncoding
from extraction_assets.model.packing import Pack, pack
from extraction_assets.page_budget import GRID_PX
from extraction_assets.schema import TargetSchema

INSTRUCTION = "Extract as JSON"
VALUE_TOKENS = 10
"""of each value under a grammar"""
_ALPHABET = string.ascii_uppercase
_STRENGTH = 64.0
"""logit of the token that follows, if nothing but the embedding of the last token were left; others have a deviation of 1.3"""


@dataclass(frozen=True)
class PageSize:
    columns: int
    """visual tokens"""
    rows: int
    prompt: int
    """text tokens of a training page before its answer"""
    response: int
    """tokens of its answer, <|im_end|> included"""

    @property
    def visual(self) -> int:
        return self.columns * self.rows

    @property
    def tokens(self) -> int:
        return self.visual + self.prompt + self.response


PAGE_8B = PageSize(columns=30, rows=40, prompt=49, response=251)
PAGE_TINY = PageSize(columns=3, rows=4, prompt=9, response=21)


def make_base(folder: Path, device: torch.device, dtype: torch.dtype, tiny: bool) -> Base:
    """folder: where its tokenizer and configs are to lie; no weights are written."""
    from transformers import Qwen3VLForConditionalGeneration

    write_tokenizer(folder, "test")
    write_processor(folder)
    _config(tiny).save_pretrained(folder)
    base_format = load_base_format(folder)
    torch.manual_seed(0)
    with device:
        model = Qwen3VLForConditionalGeneration._from_config(base_format.config, dtype=dtype, attn_implementation="sdpa")
    wrong = [name for name, weight in model.named_parameters() if weight.dtype != dtype or weight.device.type != device.type]
    if wrong:
        raise RuntimeError(f"made in another type or place: {wrong[:3]}")
    model.requires_grad_(False).eval()
    _project_as_matmul(model)
    _say_the_alphabet(model, base_format)
    return Base(base_format, model)


def write_scaled_8b(folder: Path, widths: int, depths: int) -> None:
    """A whole checkpoint folder: random weights in the proportions of the 8B model, the test tokenizer."""
    from transformers import Qwen3VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, "test")
    write_processor(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_model(Qwen3VLForConditionalGeneration(config_8b(widths, depths)), folder)


def _config(tiny: bool) -> Any:
    if not tiny:
        return config_8b()
    small = model_config("test")
    small.tie_word_embeddings = small.text_config.tie_word_embeddings = False
    return small


def config_8b(widths: int = 1, depths: int = 1) -> Any:
    """Qwen3VLConfig of Qwen3-VL-8B, widths and depths divided, with the special tokens of the test tokenizer.

    The vocabulary is divided by both, so that head, layers and tower have the shares of a token's weights that they have in the 8B model.
    Heads keep their size and become fewer: attention weighs more than there, the tower's most of all.
    """
    from transformers import Qwen3VLConfig

    small = model_config("test")
    ids = special_token_ids("test")
    text = {
        "vocab_size": 151936 // (widths * depths),
        "hidden_size": 4096 // widths,
        "intermediate_size": 12288 // widths,
        "num_hidden_layers": 36 // depths,
        "num_attention_heads": 32 // widths,
        "num_key_value_heads": 8 // widths,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        "tie_word_embeddings": False,
        **{name: getattr(small.text_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    heads = 16 // widths
    vision = {"depth": 27 // depths, "hidden_size": 72 * heads, "intermediate_size": 4304 // widths, "num_heads": heads}
    return Qwen3VLConfig(
        text_config=text,
        vision_config={
            **vision,
            "out_hidden_size": text["hidden_size"],
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [layer // depths for layer in (8, 16, 24)],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        architectures=["Qwen3VLForConditionalGeneration"],
    )


@torch.no_grad()
def _say_the_alphabet(model: Any, base_format: BaseFormat) -> None:
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    embedding.normal_(0, 1)
    for layer in model.model.language_model.layers:  # so that a token's own embedding is still there behind the last layer
        layer.self_attn.o_proj.weight.mul_(0.125)
        layer.mlp.down_proj.weight.mul_(0.125)
    followers = _followers(base_format)
    known = sorted({token for weights in followers.values() for token in weights})
    apart = torch.linalg.qr(torch.randn(embedding.shape[1], len(known))).Q.T * embedding.shape[1] ** 0.5
    embedding[known] = apart.to(embedding)  # at right angles: no token is taken for another
    for token, weights in followers.items():
        rows = [weight * embedding[previous].float() for previous, weight in weights.items()]
        head[token] = torch.stack(rows).sum(dim=0).mul(_STRENGTH / embedding.shape[1]).to(head.dtype)


def _followers(base_format: BaseFormat) -> dict[int, dict[int, float]]:
    """token -> how strongly it follows which others"""
    tokenizer = base_format.tokenizer
    letters, digits = (tokenizer.convert_tokens_to_ids(list(characters)) for characters in (_ALPHABET, string.digits))
    opens, goes_on, closes = tokenizer.convert_tokens_to_ids(['":"', '","', '"}'])
    prompt = PageEncoder(base_format).text(GRID_PX, GRID_PX, INSTRUCTION).input_ids
    quotes = [token for token in range(len(tokenizer)) if tokenizer.decode([token]).endswith('"')]
    followers = {letter: {previous: 1.0} for previous, letter in itertools.pairwise(letters)}
    followers[letters[0]] = dict.fromkeys([letters[-1], int(prompt[-1]), *quotes], 1.0)
    followers[opens] = dict.fromkeys(digits, 1.0)  # behind a key
    last = letters[VALUE_TOKENS - 1]
    followers[goes_on], followers[closes] = {last: 0.75}, {last: 0.5}  # where the grammar lets no letter follow
    return followers


# --- pages -------------------------------------------------------------------------------------------------------------------


def training_pack(base: Base, size: PageSize, pages: int) -> Pack:
    """Pages of random patches and tokens."""
    rng = np.random.default_rng(0)
    text_tokens = len(base.format.tokenizer) - len(special_token_ids("test"))
    values = 3 * base.format.pages.temporal * base.format.pages.patch**2
    pixels = rng.standard_normal((size.visual * base.format.pages.merge**2, values), dtype=np.float32)
    start = size.prompt // 2
    encoded = []
    for number in range(pages):
        ids = rng.integers(0, text_tokens, size.tokens)
        ids[start : start + size.visual] = base.format.config.image_token_id
        text = TextEncoding(ids, size.prompt + size.visual, start, size.rows, size.columns)
        encoded.append(EncodedPage(f"page {number}", text, pixels))
    return pack(encoded, base.format.pages.merge)


def prompt(size: PageSize, schema: TargetSchema | None = None, text: PageText | None = None) -> PagePrompt:
    width, height = size.columns * GRID_PX, size.rows * GRID_PX
    return PagePrompt("page", INSTRUCTION, _page_png(width, height), width, height, schema=schema, text=text)


def free_answer(tokens: int) -> str:
    return (_ALPHABET * (tokens // len(_ALPHABET) + 1))[:tokens]


@dataclass(frozen=True)
class HeldPage:
    """A page whose answer is held to a grammar, and a text layer that says all its values."""

    schema: TargetSchema
    text: PageText
    answer: str
    tokens: int
    """of the answer, <|im_end|> included"""


def held_page(base: Base, tokens: int) -> HeldPage:
    """As many fields as come closest to `tokens`."""
    pages = [_held_page(base, fields) for fields in range(1, 3 + tokens // VALUE_TOKENS)]
    return min(pages, key=lambda page: abs(page.tokens - tokens))


def _held_page(base: Base, fields: int) -> HeldPage:
    names, value = [f"f{number}" for number in range(fields)], _ALPHABET[:VALUE_TOKENS]
    leaf = {"type": "string", "maxLength": VALUE_TOKENS, "x-type": "text"}
    document = {
        "type": "object",
        "properties": dict.fromkeys(names, leaf),
        "required": names,
        "additionalProperties": False,
        "x-instruction": INSTRUCTION,
    }
    answer = json.dumps(dict.fromkeys(names, value), separators=(",", ":"))
    words = tuple(Word(text=value, box=(0, 0, 1, 1), line=line) for line in range(fields))
    tokens = len(base.format.tokenizer.encode(answer, add_special_tokens=False)) + 1
    return HeldPage(TargetSchema(document, "benchmark"), PageText(words=words), answer, tokens)


def _page_png(width: int, height: int) -> bytes:
    """A white page with lines of grey blocks."""
    rng = np.random.default_rng(0)
    pixels = np.full((height, width), 255, dtype=np.uint8)
    for top in range(16, height - 16, 24):
        ink = rng.integers(0, 2, (12, width // 4), dtype=np.uint8).repeat(4, axis=1)
        pixels[top : top + 12, : ink.shape[1]] = 255 - 200 * ink
    file = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(file, "PNG")
    return file.getvalue()
