"""Answers: page images in, the model's greedy text out. The one decoding loop of predictions, evaluation and serving.

Greedy, with a key/value cache of slots (slots.py): every page is prefilled alone, unpadded, and decoded beside the others; a page
that is done makes room for the next. An answer ends at <|im_end|> ("stop") or at max_output_tokens ("length"); nothing is repaired.
A page with a schema is held to its grammar (grammar.py): the most probable token of those that may follow, and tokens that must follow
(keys, brackets, quotes) are not asked for but go through the model together, in the pass that reads them. A page with a text layer also
has drafts (drafts.py), tokens that may follow: they are read in the same pass, and kept as far as the model would have chosen them.
Batch size, and tokens read together, change no bit of an answer's logits on a CPU (packed_steps.py); on a GPU, whose products of other shapes round
differently, they change an answer only where two tokens tie to within that.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Qwen3VLForConditionalGeneration

from extraction_assets import wire
from extraction_assets.errors import InputError
from extraction_assets.inference.drafts import Drafter
from extraction_assets.inference.grammar import Grammars
from extraction_assets.inference.matcher import Matcher, allowed, mask_buffer
from extraction_assets.inference.packed_steps import KEYS_AT_ONCE, PackedSteps
from extraction_assets.inference.page_answer import Answer, PagePrompt
from extraction_assets.inference.slots import SlotCache, whole_blocks
from extraction_assets.inference.steps import MOST_AT_ONCE, MOST_SLOTS, GraphSteps, Steps
from extraction_assets.inference.value_confidence import value_confidence
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.model.base import Base, BaseFormat
from extraction_assets.model.encoding import EncodedPage, PageEncoder, collate
from extraction_assets.page_budget import GRID_PX
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import DecodingSettings

_LEAST = 1e-30
"""probability below which all are alike; a mask may leave no token that float32 gives more than 0"""
_GRANULE = 256
"""tokens; a kept cache is as large as the next multiple, so that pages of about the same size find it fitting"""


class Answerer:
    """A model, with or without an adapter, ready to answer."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, base_format: BaseFormat, graphs: bool | None = None) -> None:
        """model: in eval mode, with stock attention, on the device where it is to answer; linears may be peft's. On a CPU its language model's
        attention function becomes packed_steps.slot_by_slot, which is the stock one for everybody else who calls the model.

        graphs: steps in fixed shapes, recorded as CUDA graphs where that can be (steps.py). None: on a GPU.
        """
        self.encoder = PageEncoder(base_format)
        self.model, self.device = model, model.device
        self._text = base_format.text
        self._stops = _stop_tokens(model, self.encoder)
        self._pad = self.encoder.end_token
        self._base_format = base_format
        self._graphs = self.device.type == "cuda" if graphs is None else graphs
        self._kept: GraphSteps | None = None
        """recorded steps and their cache, for the next loop"""

    @classmethod
    def of(cls, base: Base, adapter: Path | None = None) -> Answerer:
        """The base itself stays as it is: an adapter goes onto a copy that shares every weight it does not touch.

        In float32 the adapter is merged into its linears (rounding 1e-7, and two products less a layer); in bfloat16 or 4 bits
        it stays beside them, since merging there would round it away. Raises InputError if the adapter does not fit.
        """
        model = base.model if adapter is None else _with_adapter(base, adapter)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model.to(device).eval(), base.format)

    @functools.cached_property
    def _grammars(self) -> Grammars:
        return Grammars(Vocabulary.of(self._base_format))

    def answer(
        self, pages: Sequence[PagePrompt], settings: DecodingSettings, progress: Callable[[int, int], None] | None = None
    ) -> list[Answer]:
        """One answer a page, in the order given. progress(done, total).

        Raises InputError naming a page that is missing, altered, off the grid or too long.
        """
        answers: dict[int, Answer] = {}
        for index, answer in self.answer_each(pages, settings):
            answers[index] = answer
            if progress:
                progress(len(answers), len(pages))
        return [answers[index] for index in range(len(pages))]

    @torch.inference_mode()
    def answer_each(self, pages: Sequence[PagePrompt], settings: DecodingSettings) -> Iterator[tuple[int, Answer]]:
        """(index in pages, answer) as answers are done; pages of like length are decoded together."""
        prompts = [self.encoder.text(p.width, p.height, p.instruction, where=f"page {p.id}").tokens for p in pages]
        self._require_room(pages, prompts, settings)
        order = sorted(range(len(pages)), key=lambda index: (-prompts[index], index))
        slots = min(settings.batch_size, len(pages))
        if not slots:
            return
        active: list[_Sequence] = []
        waiting = self._encoded_ahead(pages, order)
        with self._steps(slots, max(prompts) + settings.max_output_tokens + MOST_AT_ONCE) as steps:
            while True:
                while len(active) < slots and (item := next(waiting, None)) is not None:
                    active.append(self._prefill(item[0], item[1], pages[item[0]], steps.cache, len(active), settings))
                    yield from self._finished(active, steps.cache, settings)
                if not active:
                    return
                self._step(active, steps, settings)
                yield from self._finished(active, steps.cache, settings)

    @torch.inference_mode()
    def answer_stream(
        self, take: Callable[[bool], PagePrompt | None], settings: DecodingSettings, longest: int
    ) -> Iterator[tuple[PagePrompt, Answer | InputError]]:
        """Pages that come one by one, each prefilled as soon as a place is free beside those being answered; answers as they are done.

        take(wait): the next page. wait is true where nothing is being answered: None then ends the stream, and else says that no page
        waits. longest: tokens that a prompt may have; a page that has more, or cannot be read, yields its InputError alone.
        """
        active: list[_Sequence] = []
        prompts: dict[int, PagePrompt] = {}
        with self._steps(settings.batch_size, longest + settings.max_output_tokens + MOST_AT_ONCE) as steps:
            for count in itertools.count():
                if len(active) < settings.batch_size and (prompt := take(not active)) is not None:
                    try:
                        page = self._encode(prompt)
                        if page.text.tokens > longest:
                            raise InputError(f"page {prompt.id}", f"it has {page.text.tokens} tokens", f"at most {longest}")
                    except InputError as error:
                        yield prompt, error
                        continue
                    prompts[count] = prompt
                    active.append(self._prefill(count, page, prompt, steps.cache, len(active), settings))
                elif active:
                    self._step(active, steps, settings)
                else:
                    return
                for index, answer in self._finished(active, steps.cache, settings):
                    yield prompts.pop(index), answer

    # --- the loop's parts --------------------------------------------------------------------------------------------------

    def _prefill(
        self, index: int, page: EncodedPage, prompt: PagePrompt, cache: SlotCache, slot: int, settings: DecodingSettings
    ) -> _Sequence:
        started = time.perf_counter()
        batch = collate([page], self._pad).to(self.device)
        cache.open_prefill(slot)
        hidden = self.model.model(
            input_ids=batch.input_ids,
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.image_grid_thw,
            position_ids=batch.position_ids,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        matcher = self._grammars.of(prompt.schema).matcher() if prompt.schema is not None and settings.constrained else None
        drafter = Drafter.of(prompt.text, self._grammars.vocabulary) if prompt.text is not None and prompt.text.words else None
        position = int(page.text.positions[0, -1]) + 1
        sequence = _Sequence(index, page.id, started, page.text.tokens, position, prompt.schema, matcher, drafter)
        sequence.take_forced()
        if not sequence.tokens:
            self._choose([sequence], self.model.lm_head(hidden[:, -1]))
        return sequence

    def _step(self, active: list[_Sequence], steps: Steps, settings: DecodingSettings) -> None:
        """Read what each sequence has not read yet and its draft, at most MOST_AT_ONCE tokens; then choose for those that have read all."""
        unread = [sequence.tokens[sequence.read : sequence.read + MOST_AT_ONCE] for sequence in active]
        fed = [tokens + self._draft(sequence, tokens, settings) for sequence, tokens in zip(active, unread, strict=True)]
        logits = steps.read(fed, [sequence.length for sequence in active], [sequence.position for sequence in active])
        for sequence, tokens in zip(active, unread, strict=True):
            sequence.go_on(len(tokens))
            sequence.passes += 1
        # place: of the last token, among those fed, that is known to belong to the answer
        place = {slot: len(unread[slot]) - 1 for slot, sequence in enumerate(active) if sequence.read == len(sequence.tokens)}
        while place:
            slots = list(place)
            self._choose([active[slot] for slot in slots], logits(slots, list(place.values())))
            for slot in slots:
                sequence = active[slot]
                agreed = _common(sequence.tokens[sequence.read :], fed[slot][place[slot] + 1 :])
                sequence.go_on(agreed)
                place[slot] += agreed
                # only behind the last token of the answer so far can another be chosen
                if not agreed or sequence.read < len(sequence.tokens) or self._is_done(sequence, settings):
                    del place[slot]

    def _draft(self, sequence: _Sequence, unread: list[int], settings: DecodingSettings) -> list[int]:
        if sequence.drafter is None or sequence.read + len(unread) < len(sequence.tokens):
            return []
        room = min(MOST_AT_ONCE - len(unread), settings.max_output_tokens - len(sequence.tokens))
        written = self._grammars.vocabulary.bytes_of(sequence.tokens).decode(errors="ignore")
        return sequence.drafter.propose(written, room)

    def _is_done(self, sequence: _Sequence, settings: DecodingSettings) -> bool:
        return sequence.tokens[-1] in self._stops or len(sequence.tokens) >= settings.max_output_tokens

    def _choose(self, sequences: list[_Sequence], logits: torch.Tensor) -> None:
        """Append to each sequence its most probable token of those allowed, and what must follow; logits: (sequences, vocabulary)."""
        logits = logits.float()
        norms = torch.logsumexp(logits, dim=-1)
        held = [row for row, sequence in enumerate(sequences) if sequence.matcher is not None]
        if held:
            matchers = [sequence.matcher for sequence in sequences if sequence.matcher is not None]
            masks = mask_buffer(matchers[0].vocabulary, len(held))
            for row, matcher in enumerate(matchers):
                matcher.fill_mask(masks, row)
            may = torch.from_numpy(allowed(masks, logits.shape[-1])).to(self.device)
            if len(held) == len(sequences):  # one walk over the vocabulary; picking rows and putting them back takes three
                logits = torch.where(may, logits, float("-inf"))
            else:
                logits[held] = logits[held].masked_fill(~may, float("-inf"))
        best, tokens = logits.max(dim=-1)
        probabilities = torch.exp(best - norms)
        for sequence, token, probability in zip(sequences, tokens.tolist(), probabilities.tolist(), strict=True):
            sequence.take(token, probability)

    def _finished(self, active: list[_Sequence], cache: SlotCache, settings: DecodingSettings) -> Iterator[tuple[int, Answer]]:
        """Yield the sequences that are done and close their slots: the last active one moves into the gap."""
        for slot in range(len(active) - 1, -1, -1):
            sequence = active[slot]
            del sequence.tokens[settings.max_output_tokens :], sequence.logprobs[settings.max_output_tokens :]
            stopped = sequence.tokens[-1] in self._stops
            if not stopped and len(sequence.tokens) < settings.max_output_tokens:
                continue
            last = active.pop()
            if last is not sequence:
                cache.move(len(active), slot, last.length)
                active[slot] = last
            yield sequence.index, self._answer(sequence, stopped)

    def _answer(self, sequence: _Sequence, stopped: bool) -> Answer:
        count = len(sequence.tokens)
        text = self.encoder.decode(sequence.tokens[:-1] if stopped else sequence.tokens)
        seconds = time.perf_counter() - sequence.started
        confidence = sequence.probability / max(1, sequence.chosen)
        spelled = [self._grammars.vocabulary.bytes_of([token]) for token in sequence.tokens[:-1]] if stopped else []
        values = value_confidence(text, spelled, sequence.logprobs)
        if (schema := sequence.schema) is not None and (told := wire.read(schema, text)) is not None:
            text, values = told, {wire.object_pointer(schema, pointer): sure for pointer, sure in values.items()}
        return Answer(sequence.id, text, "stop" if stopped else "length", count, confidence, values, sequence.passes, seconds)

    def _encoded_ahead(self, pages: Sequence[PagePrompt], order: Sequence[int]) -> Iterator[tuple[int, EncodedPage]]:
        """Pages in order, the next one being read while this one is answered."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(self._encode, pages[order[0]]) if order else None
            for here, index in enumerate(order):
                assert future is not None
                page = future.result()
                future = pool.submit(self._encode, pages[order[here + 1]]) if here + 1 < len(order) else None
                yield index, page

    def _encode(self, prompt: PagePrompt) -> EncodedPage:
        where = f"page {prompt.id}"
        try:
            png = prompt.page if isinstance(prompt.page, bytes) else prompt.page.read_bytes()
        except OSError as error:
            place = f"{where} ({prompt.page!s})"
            raise InputError(place, f"cannot be read: {error.strerror}", do="Materialize page_images again") from None
        page = self.encoder.page(prompt.id, png, prompt.instruction, digest=prompt.page_digest, where=where)
        if (page.text.columns * GRID_PX, page.text.rows * GRID_PX) != (prompt.width, prompt.height):
            found = f"page image is {page.text.columns * GRID_PX} x {page.text.rows * GRID_PX} px"
            raise InputError(where, found, f"{prompt.width} x {prompt.height} as recorded", "Materialize the splits again")
        return page

    def room(self, settings: DecodingSettings) -> int:
        """Tokens that a prompt may have beside the longest answer."""
        return int(self._text.max_position_embeddings) - settings.max_output_tokens

    def _require_room(self, pages: Sequence[PagePrompt], prompts: Sequence[int], settings: DecodingSettings) -> None:
        for page, tokens in zip(pages, prompts, strict=True):
            if tokens > self.room(settings):
                limit = self.room(settings) + settings.max_output_tokens
                raise InputError(
                    f"page {page.id}",
                    f"its {tokens} tokens and {settings.max_output_tokens} of answer do not fit the base's {limit}",
                    do="Lower render.max_visual_tokens or decoding.max_output_tokens",
                )

    @contextmanager
    def _steps(self, slots: int, capacity: int) -> Iterator[Steps]:
        """A cache for a loop and its passes. Recorded ones are kept; a loop that runs beside another one has its own."""
        if self.device.type == "cpu" and not self._graphs:
            yield PackedSteps(self.model, self._cache(slots, whole_blocks(capacity, KEYS_AT_ONCE)), self._pad)
            return
        if not self._graphs or slots > MOST_SLOTS:
            yield Steps(self.model, self._cache(slots, capacity), self._pad)
            return
        steps, self._kept = self._kept, None
        if steps is None or not steps.fits(slots, capacity):
            steps = None  # frees the old cache before the new one is made
            steps = GraphSteps(self.model, self._cache(slots, whole_blocks(capacity, _GRANULE)), self._pad)
        try:
            yield steps
        finally:
            self._kept = steps

    def _cache(self, slots: int, capacity: int) -> SlotCache:
        text = self._text
        dtype = cast(torch.Tensor, self.model.get_input_embeddings().weight).dtype
        return SlotCache(
            text.num_hidden_layers, slots, text.num_key_value_heads or text.num_attention_heads, capacity, text.head_dim, dtype, self.device
        )


@dataclass
class _Sequence:
    """One page while it is being answered."""

    index: int
    id: str
    started: float
    length: int
    """tokens in the cache"""
    position: int
    """M-RoPE position of the next token, the same on all three axes"""
    schema: TargetSchema | None
    """says how its rows are written"""
    matcher: Matcher | None
    """where the answer stands in its grammar; None: free text"""
    drafter: Drafter | None
    """None: a page without a text layer"""
    tokens: list[int] = field(default_factory=list)
    """of the answer so far"""
    read: int = 0
    """of `tokens`, those that have gone through the model"""
    chosen: int = 0
    """of `tokens`, those that the model was asked for"""
    probability: float = 0.0
    """sum over the chosen tokens"""
    logprobs: list[float] = field(default_factory=list)
    """of each of `tokens`; 0 where there was no choice"""
    passes: int = 1
    """forward passes so far; the prefill is the first"""

    def go_on(self, tokens: int) -> None:
        """So many more tokens of the answer have gone through the model."""
        self.read += tokens
        self.length += tokens
        self.position += tokens

    def take(self, token: int, probability: float) -> None:
        """Append a chosen token and those that must follow it."""
        self.tokens.append(token)
        self.chosen += 1
        self.probability += probability
        self.logprobs.append(math.log(max(probability, _LEAST)))
        if self.matcher is not None:
            self.matcher.consume([token])
            self.take_forced()

    def take_forced(self) -> None:
        while self.matcher is not None and not self.matcher.is_ended and (forced := self.matcher.forced()):
            taken = forced[: self.matcher.consume(forced)]
            self.tokens += taken
            self.logprobs += [0.0] * len(taken)


def _common(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many of the first tokens are the same."""
    return next((i for i, (one, other) in enumerate(zip(tokens, others, strict=False)) if one != other), min(len(tokens), len(others)))


def _with_adapter(base: Base, adapter: Path) -> Qwen3VLForConditionalGeneration:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    if not (adapter / "adapter_config.json").is_file():
        raise InputError(str(adapter), "holds no adapter_config.json", "a LoRA adapter folder", "Train one, or point to its folder")
    shared = {id(tensor): tensor for tensor in (*base.model.parameters(), *base.model.buffers())}
    model = copy.deepcopy(base.model, memo=shared)  # the modules are copied, the weights are not
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(str(adapter), f"does not fit this base: {reason}", do="Use the base it was trained on") from None
    if next(base.model.parameters()).dtype != torch.float32 or getattr(base.model, "quantization_method", None) is not None:
        return cast(Qwen3VLForConditionalGeneration, adapted.get_base_model())  # the adapters live inside its linears
    for module in adapted.modules():
        if isinstance(module, LoraLayer):  # merging writes in place; the base must not see it
            layer: Any = module.get_base_layer()
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    merged: Any = adapted  # peft forwards merge_and_unload to its tuner, which typing cannot see
    return cast(Qwen3VLForConditionalGeneration, merged.merge_and_unload())


def _stop_tokens(model: Qwen3VLForConditionalGeneration, encoder: PageEncoder) -> frozenset[int]:
    """<|im_end|> and whatever else the checkpoint's generation_config ends a text with."""
    config = getattr(model, "generation_config", None)
    declared = getattr(config, "eos_token_id", None)
    return frozenset([encoder.end_token, *([declared] if isinstance(declared, int) else declared or [])])
