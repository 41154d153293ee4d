"""The splits in the formats of other trainers, each with a ready config for LoRA on Qwen3-VL.

folder.py          the folder of an export: read, refused or written whole, reused
trainer_format.py  what the formats share: an example, a run, what a format has to say of itself
qwen.py llamafactory.py swift.py trl.py     one trainer each, with the version of its source that was followed
qwen_train.py trl_train.py                  scripts that go along in the export, for the two trainers that need one
"""

from typing import Literal

FormatName = Literal["qwen", "llamafactory", "swift", "trl"]
FORMATS: tuple[FormatName, ...] = ("qwen", "llamafactory", "swift", "trl")
