"""From folders and files of results to what one report shows."""

from advprop.comparisons.page import read_results as read_results
from advprop.comparisons.page import report as report
from advprop.comparisons.page import write_comparison_report as write_comparison_report
