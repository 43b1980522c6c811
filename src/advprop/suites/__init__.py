"""Tests trained models: `evaluate` runs suites and reports what exactly was tested."""

from advprop.suites.evaluating import evaluate as evaluate
from advprop.suites.registry import DEFAULT_SUITES as DEFAULT_SUITES
from advprop.suites.registry import SUITES as SUITES
from advprop.suites.subjects import Subject as Subject
from advprop.suites.subjects import load_subject as load_subject
from advprop.suites.subjects import through_branch as through_branch
