"""Where one answer stands in its grammar: which tokens may follow, which must, and back again when drafts were wrong.

Masks are rows of bits, 32 tokens a word, filled in place into a numpy buffer that the loop keeps. llguidance's own torch helper is not used: it compiles for
seconds on its first call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from extraction_assets.inference.vocabulary import Vocabulary

Mask = npt.NDArray[np.int32]
"""(rows, words) of bits: token t is bit t % 32 of word t // 32"""


class Matcher:
    """One sequence's state. Not to be shared between sequences or threads; made by Grammar.matcher()."""

    def __init__(self, state: LLMatcher, vocabulary: Vocabulary) -> None:
        self._state, self.vocabulary = state, vocabulary
        self._ended = False
        self.consumed = 0
        """tokens so far, the end token included"""

    @property
    def is_complete(self) -> bool:
        """The object is closed: nothing but the end token may follow."""
        return not self._ended and bool(self._state.is_accepting())

    @property
    def is_ended(self) -> bool:
        """The end token has been consumed."""
        return self._ended

    def fill_mask(self, masks: Mask, row: int = 0) -> None:
        """Write the tokens that may follow into one row of `masks` (from mask_buffer).

        Where the next token is forced, it is the only one allowed, so that masks alone and forced() give the same answer.
        """
        if self._ended:
            masks[row] = 0
            return
        bits = masks[row]
        if bits.dtype != np.int32 or not bits.flags.c_contiguous:
            raise ValueError("a mask is a contiguous row of int32 (see mask_buffer)")
        self._state.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)  # refuses a row of another length
        self._require_sound()

    def fill_masks(self, drafts: Sequence[int], masks: Mask) -> int:
        """Masks for verifying drafts in one pass; returns how many rows are written, at least 1.

        Row i says what may follow after drafts[:i]. Drafts end where the mask of their place does not allow them, so a draft is
        never more than what the loop itself could have chosen. The state is as before. masks: (at least len(drafts) + 1, words)
        """
        taken = 0
        self.fill_mask(masks, 0)
        for draft in drafts:
            if not allows(masks[taken], draft) or not self.consume([draft]):
                break
            taken += 1
            self.fill_mask(masks, taken)
        self.rollback(taken)
        return taken + 1

    def forced(self) -> list[int]:
        """The tokens that must follow, as the tokenizer would split their text; [end token] behind a closed object; [] on a choice.

        Stops short where the text goes on in more than one way and a longer token might span it. llguidance 1.9.1 looks one token
        back there, while BPE can reach further: behind the last row that maxItems allows, `}` was forced once where the tokenizer
        would write `}]` (1 of 16,144 places at Qwen's vocabulary). Masks then say the same, so answers stay well defined.
        """
        if self._ended:
            return []
        return [self.vocabulary.end_token] if self.is_complete else list(self._state.compute_ff_tokens())

    def consume(self, tokens: Sequence[int]) -> int:
        """Go on by these tokens up to the first that the grammar refuses; returns how many were taken.

        Takes any split of an allowed text into tokens, also one that fill_mask would not offer: check drafts with fill_masks.
        """
        if self._ended:
            return 0
        taken = int(self._state.try_consume_tokens(list(tokens)))
        self._require_sound()
        if taken < len(tokens) and tokens[taken] == self.vocabulary.end_token and self.is_complete:
            self._ended = True  # llguidance stops at the closing bracket, before the end token
            taken += 1
        self.consumed += taken
        return taken

    def rollback(self, tokens: int) -> None:
        """Take back the last `tokens` tokens."""
        if not 0 <= tokens <= self.consumed:
            raise ValueError(f"{tokens} tokens cannot be taken back: {self.consumed} were consumed")
        if not tokens:
            return
        self.consumed -= tokens
        inner = tokens - self._ended
        self._ended = False
        if inner:
            self._state.rollback(inner)
            self._require_sound()

    def copy(self) -> Matcher:
        """The same state, going its own way from here."""
        twin = Matcher(self._state.deep_copy(), self.vocabulary)
        twin._ended, twin.consumed = self._ended, self.consumed
        return twin

    def _require_sound(self) -> None:
        if self._state.is_error():  # a limit of llguidance's parser; a refused token is no error
            raise RuntimeError(f"llguidance: {self._state.get_error()}")


def mask_buffer(vocabulary: Vocabulary, rows: int) -> Mask:
    """(rows, words), all zero: a loop keeps one and has it filled again and again."""
    return np.zeros((rows, (vocabulary.size + 31) // 32), dtype=np.int32)


def allows(mask: Mask, token: int) -> bool:
    """mask: one row, (words,)"""
    return bool(int(mask[token >> 5]) >> (token & 31) & 1)


def allowed(masks: Mask, size: int) -> npt.NDArray[np.bool_]:
    """(rows, words) -> (rows, size), or (words,) -> (size,): True where a token is allowed."""
    return np.unpackbits(masks.view(np.uint8), axis=-1, count=size, bitorder="little").view(np.bool_)


def forbid(logits: npt.NDArray[np.floating], masks: Mask) -> None:
    """Set what is not allowed to minus infinity, in place. logits: (rows, size) beside masks (rows, words), or one row of each."""
    logits[~allowed(masks, logits.shape[-1])] = -np.inf
