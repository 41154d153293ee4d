"""The pre-training recipe of the embedded base model: a job of its own, not in the user's graph.

    python -m extraction_assets.demo.base_recipe --work RUN --out data/base_models/tiny-qwen3-vl
    python -m extraction_assets.demo.base_recipe --work RUN --out FOLDER --scale 8 --workers 14     (a GPU)

RUN holds checkpoint.pt (weights, optimizers, position) and log.jsonl; the same command continues there, bit for bit. Four stages:

    glyphs   the vision tower, and the merger behind it, name the character in each 4 x 8 px slot of dense generated text
    words    the whole model reads one or two lines: transcripts and labelled values
    crops    up to eight lines: labelled values, tables
    pages    whole documents of 256 x 320 to 320 x 448 px among crops

End to end from scratch the model learns the JSON and not the letters; with the glyph stage first it learns to read. Pages are PDFs
drawn and rasterised by PyMuPDF at 72 dpi, the product's own renderer, in worker processes ahead of the trainer.

Data (no torch): words, asks, canvas, layout, pages, glyph_pages, glyph_cells, glyph_batches, reading_batches, feed.
Training: vision, reading_model, optimizer, glyph_stage, reading_stage, trainer, checkpoint, recipe. Result: export, measure.
"""
