"""From folders and files of results to what one report shows."""

from advprop.gathering.writing import read_results as read_results
from advprop.gathering.writing import report as report
from advprop.gathering.writing import write_comparison_report as write_comparison_report
