"""The pre-training recipe of the embedded base model: a job of its own, not in the user's graph.

`python -m extraction_assets.demo.base_recipe --out FOLDER --work FOLDER` teaches a tiny Qwen3-VL to read generated pages.
"""
