"""A gate that lets a worse model through, or one on too few items, is worse than no gate."""

import json
from typing import Any

import pytest
from conftest_runs import comparison

from lmwright.core.errors import RecipeError
from lmwright.core.results import Metric
from lmwright.reporting.config import Gate
from lmwright.reporting.gate import GateResult, RuleResult, check, parse
