"""Gathers results from folders and files into one report."""

from advprop.comparisons.page import read_results as read_results
from advprop.comparisons.page import report as report
from advprop.comparisons.page import write_comparison_report as write_comparison_report
