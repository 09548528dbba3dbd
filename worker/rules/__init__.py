"""Backward rules: one for each kind of layer, found in one table."""

from worker.rules.base import METHODS, Layer, Method, Nonlinear, Record, Reference, Transparent
from worker.rules.table import CALLS, MODULES, bind_call, bind_module

__all__ = [
    "CALLS",
    "METHODS",
    "MODULES",
    "Layer",
    "Method",
    "Nonlinear",
    "Record",
    "Reference",
    "Transparent",
    "bind_call",
    "bind_module",
]
