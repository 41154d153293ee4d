"""A tokenizer as llguidance sees it: the bytes of every token, and which token ends an answer.

The model's output layer may be wider than the tokenizer (Qwen3-VL: 151,936 logits, 151,669 tokens): what lies beyond stands for no
bytes, so no mask allows it. Control tokens (<|image_pad|>, ...) stand for no text either, however they are spelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llguidance import LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import PreTrainedTokenizerBase

from extraction_assets.errors import InputError
from extraction_assets.model.base import BaseFormat

END_TOKEN = "<|im_end|>"
"""what a training target ends with (model/encoding.py), so the one token that may end an answer"""
_LAST_BYTE = 0xF4
"""no UTF-8 text holds a higher one (and llguidance marks control tokens with 0xff)"""

_PLAIN = r'[^"\\\x00-\x1f]'
_SLICES = [*(f"{_PLAIN}{{1,{length}}}" for length in (2, 4, 6, 8, 10, 13, 16, 20, 30)), f"{_PLAIN}+"]
"""Groups of tokens that a mask takes or leaves as a whole, by length. llguidance's own (10, 30, any) suit strings without bounds; near
the end of a bounded one they fit no more, and every token is walked: an invoice's masks take 49 us in the mean instead of 121."""


@dataclass(frozen=True)
class Vocabulary:
    """One base's tokens. Costs some 20 ms at 1,024 tokens and 1.7 s at 151,936: make one a process."""

    llguidance: LLTokenizer
    tokenizer: PreTrainedTokenizerBase
    size: int
    """logits of one position"""
    end_token: int
    byte_tokens: tuple[int, ...]
    """(245,) the token of each byte that UTF-8 uses, 0x00 to 0xf4"""

    @classmethod
    def of(cls, base: BaseFormat) -> Vocabulary:
        """Raises InputError as from_tokenizer does."""
        return cls.from_tokenizer(base.tokenizer, int(base.text.vocab_size), str(base.folder))

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, size: int, where: str = "tokenizer") -> Vocabulary:
        """size: logits of one position, at least as many as the tokenizer has tokens. where: what an error names.

        Raises InputError: no <|im_end|>, no byte-level BPE, or more tokens than logits.
        """
        end_token = tokenizer.convert_tokens_to_ids(END_TOKEN)
        if not isinstance(end_token, int) or end_token == tokenizer.unk_token_id:
            raise InputError(where, f"its tokenizer has no {END_TOKEN}", do="Fetch the base again")
        if len(tokenizer) > size:
            raise InputError(where, f"its tokenizer has {len(tokenizer)} tokens", f"at most {size}, the model's vocab_size")
        wrapped: Any = tokenizer
        try:
            llguidance = from_tokenizer(wrapped, n_vocab=size, eos_token=end_token, slices=_SLICES)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise InputError(where, f"llguidance cannot use its tokenizer: {reason}", "a fast, byte-level BPE tokenizer") from None
        by_byte = [llguidance.tokenize_bytes(bytes([byte])) for byte in range(_LAST_BYTE + 1)]
        if lacking := [byte for byte, tokens in enumerate(by_byte) if len(tokens) != 1 or llguidance.decode_bytes(tokens) != bytes([byte])]:
            raise InputError(where, f"its tokenizer has no token for byte {lacking[0]:#04x}", "a byte-level BPE tokenizer")
        return cls(llguidance, tokenizer, size, end_token, tuple(tokens[0] for tokens in by_byte))

    def bytes_of(self, tokens: list[int]) -> bytes:
        return self.llguidance.decode_bytes(tokens)

    def learnt_text(self, target: str) -> str:
        """The text that the tokens of a target spell: the tokenizer composes characters (NFC) before it splits them."""
        normalizer = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "normalizer", None)
        return target if normalizer is None else str(normalizer.normalize_str(target))
