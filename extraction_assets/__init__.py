"""extraction_assets: a Dagster asset graph that teaches Qwen3-VL to read a company's own vendor PDFs."""

__version__ = "0.1.0"
