"""Whether a detector keeps the contract of :mod:`methods.detector`: one named check per promise.

From pytest, in a package of your own::

    import pytest
    from methods.conformance import CHECKS, Subject, run_check

    SUBJECT = Subject(MyDetector, {"training_steps": 10}, exceptions={"orientation": "needs an hour to learn"})

    @pytest.mark.parametrize("name", CHECKS)
    def test_conformance(name):
        outcome = run_check(name, SUBJECT)
        assert not outcome.broken, outcome.explanation

From the command line: ``bench check-method my_detector.py:MyDetector --set training_steps=10``.
"""

from methods.conformance.check import Check, Outcome
from methods.conformance.subject import Subject
from methods.conformance.suite import BUILT_IN_SETUPS, CHECKS, Setup, check_detector, run_check

__all__ = ["BUILT_IN_SETUPS", "CHECKS", "Check", "Outcome", "Setup", "Subject", "check_detector", "run_check"]
