"""The input pipeline: page files -> packs, ahead of the step, in a thread (Pillow and numpy let go of the GIL)."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from extraction_assets.errors import InputError
from extraction_assets.model.encoding import EncodedPage, PageEncoder, TextEncoding, read_page
from extraction_assets.model.examples import Example
from extraction_assets.model.packing import Pack, pack

_AGAIN = "Materialize page_images and the splits again"


class Feed:
    """Reads, checks and packs examples whose tokens are known already."""

    def __init__(
        self,
        examples: Sequence[tuple[Example, TextEncoding]],
        encoder: PageEncoder,
        known: Container[str] = frozenset(),
        see_ahead: Callable[[Pack], None] | None = None,
    ) -> None:
        """known: ids of examples whose pages need no pixels any more. see_ahead: what else to do with a pack ahead of its step."""
        self.examples, self.encoder, self.known, self._see_ahead = examples, encoder, known, see_ahead
        self.ids = [example.id for example, _ in examples]
        self.lengths = [text.tokens for _, text in examples]
        self.response_tokens = [text.response_tokens for _, text in examples]

    def packs(self, rows: Iterable[Sequence[int]], ahead: int = 2) -> Generator[Pack, None, None]:
        """One pack for each group of rows, in order. Raises InputError naming the example whose page is missing or altered."""
        groups = iter(rows)
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: list[Future[Pack]] = [pool.submit(self._ahead, group) for group in islice(groups, ahead)]
            try:
                while waiting:
                    done = waiting.pop(0).result()
                    waiting += [pool.submit(self._ahead, group) for group in islice(groups, 1)]
                    yield done
            finally:
                for future in waiting:
                    future.cancel()

    def _ahead(self, rows: Sequence[int]) -> Pack:
        packed = self.pack(rows)
        if self._see_ahead is not None:
            self._see_ahead(packed)
        return packed

    def pack(self, rows: Sequence[int]) -> Pack:
        return pack([self._page(row) for row in rows], self.encoder.pages.merge)

    def _page(self, row: int) -> EncodedPage:
        example, text = self.examples[row]
        if example.id in self.known:
            return EncodedPage(example.id, text, self.encoder.no_patches)
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
