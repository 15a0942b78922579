"""``python -m tests.undrawn experiments.copy …``: a program as its users start it, but that no figures are drawn."""

import importlib
import sys

from experiments import start

if __name__ == "__main__":
    start.as_program()
    program = importlib.import_module(sys.argv.pop(1))
    for drawing in ("experiment.draw_figures", "grid_report.draw_figures", "grid_report._draw"):
        module, function = drawing.split(".")
        setattr(importlib.import_module(f"experiments.{module}"), function, lambda *_: None)
    program.main()
