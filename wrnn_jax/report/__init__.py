"""Run directories in, the papers' tables with ours beside them out: Markdown, and one HTML page."""

from wrnn_jax.report.build import Report, build_report, paper_table

__all__ = ["Report", "build_report", "paper_table"]
