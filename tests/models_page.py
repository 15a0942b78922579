"""The example of ``wrnn_jax/models/README.md``, as a module of one's own."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "wrnn_jax/models/README.md"
_TEXT = PAGE.read_text(encoding="utf-8")
FILE, *_ = re.findall(r"```python\n(.*?)```", _TEXT, flags=re.DOTALL)
COMMANDS = re.findall(r"^python3 .*", _TEXT, flags=re.MULTILINE)
MODEL = "my_models:cornn"


def write_model(folder, patch):
    """Put it into a folder that modules are imported from."""
    (folder / "my_models.py").write_text(FILE, encoding="utf-8")
    patch.syspath_prepend(folder)
