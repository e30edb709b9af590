"""Benchmarks: everything is measured beside its baseline, in turn, in one run; ratios are the result and nothing is
asserted.
"""
