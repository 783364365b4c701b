"""Checks the environment and says how to mend what is wrong: `causalroute doctor`, or `python -m causalroute.doctor` where that does not start.

The package itself needs the standard library alone. Third-party libraries are imported in child processes (`probe.py`), so that one that is
missing, broken or kills the interpreter is a finding and not the end of the examination.
"""
