"""A layer that sees too far, or not far enough, says other words than it learnt."""

from dataclasses import replace

import pytest

from lmwright.core.errors import ModelError
from lmwright.model.families.windows import GLOBAL, LOCAL, layer_types, read_layer_types


def test_without_types_the_familys_rule_holds():
    assert read_layer_types({}, (True, False)) == (True, False)


def test_types_that_are_given_stand_above_the_rule():
    assert read_layer_types({"layer_types": [GLOBAL, LOCAL]}, (True, False)) == (False, True)


@pytest.mark.parametrize("kind", ["chunked_attention", "", 3, None])
def test_a_type_that_is_not_built_is_refused(kind):
    fault = f"layer type {kind!r}; known: {LOCAL}, {GLOBAL}|expected a list of texts"
    with pytest.raises(ModelError, match=fault):
        read_layer_types({"layer_types": [LOCAL, kind]}, (True, True))


def test_one_type_a_layer(tiny_config):
    with pytest.raises(ModelError, match="3 types for 2 layers"):
        replace(tiny_config, sliding_window=4, local_layers=(True, False, True))


def test_types_come_back(tiny_config):
    for local in ((), (True, False), (False, True), (False, False)):
        config = replace(tiny_config, sliding_window=4, local_layers=local)
        again = read_layer_types({"layer_types": layer_types(config)}, ())
        assert again == (local or (True, True))
    assert layer_types(tiny_config) == [GLOBAL, GLOBAL]
