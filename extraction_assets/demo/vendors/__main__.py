"""Write generated vendors: `python -m extraction_assets.demo.vendors FOLDER --seed 1 --vendors 6 --documents 24`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from extraction_assets.demo.vendors import LANGUAGES, TYPES, generate
from extraction_assets.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m extraction_assets.demo.vendors", description=__doc__)
    parser.add_argument("folder", type=Path, help="gets <type>/<vendor>/<stem>.pdf and .json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vendors", type=int, default=6, help="in all; the types take turns")
    parser.add_argument("--documents", type=int, default=24, help="per vendor")
    parser.add_argument("--hybrid-xml", type=float, default=0.0, help="share of the invoices that carry Factur-X XML, 0 to 1")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--page", choices=("small", "a4"), default="small")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, help="three drawn from the seed, if not given")
    options = parser.parse_args(arguments)
    try:
        made = generate(
            options.folder,
            options.seed,
            options.vendors,
            options.documents,
            options.hybrid_xml,
            options.types,
            page=options.page,
            languages=options.languages,
        )
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{len(made.files)} documents ({made.pages} pages, {made.hybrid} with XML) of {len(made.vendors)} vendors in {made.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
