"""The input pipeline: page files -> batches, one micro batch ahead of the step, in a thread (Pillow and numpy let go of the GIL)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from extraction_assets.errors import InputError
from extraction_assets.model.encoding import Batch, EncodedPage, PageEncoder, TextEncoding, collate, read_page
from extraction_assets.model.examples import Example

_AGAIN = "Materialize page_images and the splits again"


class Feed:
    """Reads, checks and collates examples whose tokens are known already."""

    def __init__(self, examples: Sequence[tuple[Example, TextEncoding]], encoder: PageEncoder) -> None:
        self.examples, self.encoder = examples, encoder
        self.ids = [example.id for example, _ in examples]
        self.lengths = [text.tokens for _, text in examples]
        self.response_tokens = [text.response_tokens for _, text in examples]
        self._pad = encoder.tokenizer.pad_token_id if encoder.tokenizer.pad_token_id is not None else encoder.end_token

    def batches(self, rows: Iterable[Sequence[int]], ahead: int = 2) -> Generator[Batch, None, None]:
        """One batch for each group of rows, in order. Raises InputError naming the example whose page is missing or altered."""
        groups = iter(rows)
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: list[Future[Batch]] = [pool.submit(self.batch, group) for group in islice(groups, ahead)]
            try:
                while waiting:
                    batch = waiting.pop(0).result()
                    waiting += [pool.submit(self.batch, group) for group in islice(groups, 1)]
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, rows: Sequence[int]) -> Batch:
        return collate([self._page(row) for row in rows], self._pad)

    def _page(self, row: int) -> EncodedPage:
        example, text = self.examples[row]
        where = f"example {example.id} ({example.image})"
        try:
            png = example.image.read_bytes()
        except OSError as error:
            raise InputError(where, f"its page image cannot be read: {error.strerror}", do=_AGAIN) from None
        pixels = read_page(png, where, example.page_digest)
        if pixels.shape[:2] != (example.height, example.width):
            found = f"page image is {pixels.shape[1]} x {pixels.shape[0]} px"
            raise InputError(where, found, f"{example.width} x {example.height} as recorded", _AGAIN)
        return EncodedPage(example.id, text, self.encoder.patches(pixels))
