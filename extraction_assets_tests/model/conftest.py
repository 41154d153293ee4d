from extraction_assets_tests.model.pages import base, base_folder, encoder

__all__ = ["base", "base_folder", "encoder"]
