from typing import get_args

import pytest

from pipelines.report.model_view import system_name
from ulsdram_core.method.model import ModelConfig
from ulsdram_core.method.range_policy import RangePolicyConfig

KINDS = get_args(RangePolicyConfig.model_fields["kind"].annotation)


@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_has_a_name(kind):
    assert system_name(ModelConfig.model_validate({"policy": {"kind": kind}}))


def test_suopentag_is_named():
    found = system_name(ModelConfig.model_validate({"policy": {"kind": "suopentag"}}))
    assert found == "ULS-L + SUOpenTag"
