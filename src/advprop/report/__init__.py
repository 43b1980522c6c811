"""The report of a comparison: one self-contained HTML file, computed from JSON alone."""

from advprop.report.page.render import render_report

__all__ = ["render_report"]
