"""The pre-training recipe of the embedded base model: a job of its own, not in the user's graph.

    python -m extraction_assets.demo.base_recipe --work RUN --out data/base_models/tiny-qwen3-vl
    python -m extraction_assets.demo.base_recipe --work RUN --out FOLDER --scale 8 --workers 14     (a GPU)

RUN holds checkpoint.pt (weights, optimizers, position) and log.jsonl; the same command continues there, bit for bit. Seven stages:

    small_glyphs   the vision tower, and the merger behind it, name the character in each 4 x 8 px slot of dense small print (13 to 21 px)
    glyphs         the same at the sizes of the pages to come (17 to 28 px: 8.5 to 14 pt at 144 dpi)
    lines          the language model, with the tower at rest, writes down lines of print, one to four at a time
    words          labelled values of one to four lines, and transcripts among them
    crops          up to ten lines: labelled values, tables
    pages          whole documents of 384 x 288 to 640 x 896 px among crops
    finish         the same, and the tower learns on, slowly

End to end from scratch the model learns the JSON and not the letters; with the glyph stages first it learns to read. In the reading
stages some attention heads are shown where on the page the next token stands (attention supervision). Pages are PDFs drawn and
rasterised by PyMuPDF, the product's own renderer, in worker processes ahead of the trainer.

Data (no torch): words, asks, canvas, layout, pages, glyph_pages, glyph_cells, glyph_batches, reading_batches, feed.
Training: vision, reading_model, optimizer, glyph_stage, reading_stage, trainer, checkpoint, recipe. Result: export, measure.
"""
