"""Training: plans, schedules and recipes, the loop, callbacks, history."""

from typing import TYPE_CHECKING

from ..core.planned import planned_names, public_names
from .callbacks import Callback, LearningRateMonitor, LoudEarlyStopping, SaveCheckpoint
from .config import KwargsLike, TrainerConfig, TrainingPlanConfig, merge_kwargs
from .history import History
from .metrics import ElboMetric
from .nonfinite import NonFiniteLossError
from .plans.base import Plan
from .plans.elbo import TrainingPlan
from .recipes import RECIPES, Recipe
from .runner import TrainRunner
from .trainer import Trainer

if TYPE_CHECKING:
    from .checkpoints import DifferentRunError, TerminatedError
    from .plans.adversarial import AdversarialTrainingPlan, AdversarialTrainingPlanConfig
    from .plans.classification import METRIC_KEYS
    from .plans.classifier import ClassifierTrainingPlan, ClassifierTrainingPlanConfig
    from .plans.pyro import (
        LowLevelPyroTrainingPlan,
        LowLevelPyroTrainingPlanConfig,
        PyroTrainingPlan,
        PyroTrainingPlanConfig,
    )
    from .plans.semisupervised import SemiSupervisedTrainingPlan, SemiSupervisedTrainingPlanConfig
    from .plans.semisupervised_adversarial import (
        SemiSupervisedAdversarialTrainingPlan,
        SemiSupervisedAdversarialTrainingPlanConfig,
    )
    from .scib import ScibCallback

__all__ = [
    "METRIC_KEYS",
    "RECIPES",
    "AdversarialTrainingPlan",
    "AdversarialTrainingPlanConfig",
    "Callback",
    "ClassifierTrainingPlan",
    "ClassifierTrainingPlanConfig",
    "DifferentRunError",
    "ElboMetric",
    "History",
    "KwargsLike",
    "LearningRateMonitor",
    "LoudEarlyStopping",
    "LowLevelPyroTrainingPlan",
    "LowLevelPyroTrainingPlanConfig",
    "NonFiniteLossError",
    "Plan",
    "PyroTrainingPlan",
    "PyroTrainingPlanConfig",
    "Recipe",
    "SaveCheckpoint",
    "ScibCallback",
    "SemiSupervisedAdversarialTrainingPlan",
    "SemiSupervisedAdversarialTrainingPlanConfig",
    "SemiSupervisedTrainingPlan",
    "SemiSupervisedTrainingPlanConfig",
    "TerminatedError",
    "TrainRunner",
    "Trainer",
    "TrainerConfig",
    "TrainingPlan",
    "TrainingPlanConfig",
    "merge_kwargs",
]

_HOMES = {
    "METRIC_KEYS": "plans.classification",
    "AdversarialTrainingPlan": "plans.adversarial",
    "AdversarialTrainingPlanConfig": "plans.adversarial",
    "ClassifierTrainingPlan": "plans.classifier",
    "ClassifierTrainingPlanConfig": "plans.classifier",
    "DifferentRunError": "checkpoints",
    "LowLevelPyroTrainingPlan": "plans.pyro",
    "LowLevelPyroTrainingPlanConfig": "plans.pyro",
    "PyroTrainingPlan": "plans.pyro",
    "PyroTrainingPlanConfig": "plans.pyro",
    "ScibCallback": "scib",
    "SemiSupervisedAdversarialTrainingPlan": "plans.semisupervised_adversarial",
    "SemiSupervisedAdversarialTrainingPlanConfig": "plans.semisupervised_adversarial",
    "SemiSupervisedTrainingPlan": "plans.semisupervised",
    "SemiSupervisedTrainingPlanConfig": "plans.semisupervised",
    "TerminatedError": "checkpoints",
}

__getattr__ = planned_names(__name__, _HOMES)
__dir__ = public_names(__name__)
