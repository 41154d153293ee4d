import sys

from extraction_assets.cli import main

sys.exit(main())
