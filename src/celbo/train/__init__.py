"""Training: plans, schedules and recipes, the loop, callbacks, history."""

from ..core.planned import planned_names, public_names
from .adversarial import AdversarialTrainingPlan, AdversarialTrainingPlanConfig
from .base import Plan
from .callbacks import Callback, LearningRateMonitor, LoudEarlyStopping, SaveCheckpoint
from .checkpointing import TerminatedError
from .classifier import ClassifierTrainingPlan, ClassifierTrainingPlanConfig
from .config import KwargsLike, TrainerConfig, TrainingPlanConfig, merge_kwargs
from .history import History
from .identity import DifferentRunError
from .keys import METRIC_KEYS
from .metrics import ElboMetric
from .nonfinite import NonFiniteLossError
from .plan import TrainingPlan
from .recipes import RECIPES, Recipe
from .runner import TrainRunner
from .semisupervised import SemiSupervisedTrainingPlan, SemiSupervisedTrainingPlanConfig
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
