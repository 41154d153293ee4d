"""training"""

import extraction_assets.model  # noqa: F401  # first: it silences what peft's import would say
