"""The report of a comparison: one self-contained HTML file, a pure function of JSON."""

from advprop.report.page.render import render_report

__all__ = ["render_report"]
