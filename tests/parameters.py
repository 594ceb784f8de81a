"""The default parameters as plain data, with one of them changed, and what is said against them."""

import copy
from functools import cache

from ruamel.yaml import YAML

from pipeline.config import parse_params
from pipeline.schema import ConfigError
from pipeline.unit import PROJECT


@cache
def parsed():
    return YAML(typ="safe", pure=True).load((PROJECT / "params.yaml").read_text())


def raw():
    return copy.deepcopy(parsed())


def refusal(params):
    """What is said against these parameters, or nothing."""
    try:
        parse_params(params)
    except ConfigError as error:
        return str(error)
    return ""


def changed(path, value):
    params = raw()
    *parents, last = path.split(".")
    node = params
    for name in parents:
        node = node[name]
    node[last] = value
    return params


def leaves(node, path=""):
    if not isinstance(node, dict):
        return [path.removeprefix(".")]
    return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}")]
