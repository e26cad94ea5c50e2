"""Predicts memory and time of a training step on a pod from its compiled programs."""

from jaxrl_surrogate.lab.plan.job import Job
from jaxrl_surrogate.lab.plan.report import Plan, make_plan
from jaxrl_surrogate.lab.plan.topology import Chip, Topology

__all__ = ["Chip", "Job", "Plan", "Topology", "make_plan"]
