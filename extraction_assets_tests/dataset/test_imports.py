"""Promise: the dataset stage is cheap to import; what is heavy is loaded when it is used."""

import subprocess
import sys


def test_importing_every_module_loads_nothing_heavy() -> None:
    code = (
        "import pkgutil, importlib, sys, extraction_assets.dataset as d\n"
        "for m in pkgutil.walk_packages(d.__path__, d.__name__ + '.'): importlib.import_module(m.name)\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'dagster', 'pymupdf', 'datasketch', 'imagehash', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
