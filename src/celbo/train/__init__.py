"""Training: plans, schedules and recipes, the loop, callbacks, history."""

from ..core.planned import planned_names, public_names
from .callbacks import Callback, LearningRateMonitor, LoudEarlyStopping, SaveCheckpoint
from .checkpoints.fingerprint import DifferentRunError
from .checkpoints.schedule import TerminatedError
from .config import KwargsLike, TrainerConfig, TrainingPlanConfig, merge_kwargs
from .history import History
from .metrics import ElboMetric
from .nonfinite import NonFiniteLossError
from .plans.adversarial import AdversarialTrainingPlan, AdversarialTrainingPlanConfig
from .plans.base import Plan
from .plans.classifier import ClassifierTrainingPlan, ClassifierTrainingPlanConfig
from .plans.elbo import TrainingPlan
from .plans.keys import METRIC_KEYS
from .plans.semisupervised import SemiSupervisedTrainingPlan, SemiSupervisedTrainingPlanConfig
from .recipes import RECIPES, Recipe
from .runner import TrainRunner
from .trainer import Trainer

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
    "NonFiniteLossError",
    "Plan",
    "Recipe",
    "SaveCheckpoint",
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

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
