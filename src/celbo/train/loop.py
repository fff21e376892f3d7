"""The loop itself: an epoch of training, an epoch of validation.

A minibatch travels one way: loader -> device -> ``plan.steps`` -> backward -> optimizer -> schedules -> metrics ->
history. An epoch can begin in its middle, where a resumed run was.
"""

import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from ..ops.draws import drawing_of, draws_globally, minibatches_of
from ..ops.native.threads import between_batches
from .engines.recorded import RecordedStage, can_be_recorded
from .optim import SchedulerLink, parameters_of
from .plans.base import Step
from .run import Run
from .run_state import batches_in

__all__ = ["prepare_recordings", "run_epoch"]

logger = logging.getLogger("celbo")

_FEWEST_STEPS = 10
"""Steps of a run below which nothing is recorded: that takes as long as some of them, and begins with the third."""


def prepare_recordings(trainer: Run) -> None:
    """Let the device record minibatches where it can, and where Python has nothing to do within one."""
    graphs, plan = trainer.engine.graphs(), trainer.plan
    trainer.recorded = {}
    if graphs is None:
        return
    if trainer.listens("on_before_backward", "on_after_backward", "on_before_optimizer_step"):
        return logger.debug("No minibatch is recorded: a callback looks into each step.")
    if torch.is_anomaly_enabled():
        return logger.debug("No minibatch is recorded: torch looks for the operation that makes a gradient NaN.")
    if draws_globally(plan):  # nobody knows what a class that is not celbo's changes in Python
        return logger.debug("No minibatch is recorded: the plan has parts of classes that are not celbo's.")
    if 0 < _steps_of(trainer) < _FEWEST_STEPS:
        return None
    trainer.recorded["validation"] = RecordedStage(graphs, plan, "validation", plan.validation_step)
    if trainer.accumulate_grad_batches > 1:
        logger.debug("Steps are not recorded: gradients are accumulated.")
    elif graphs.moves and not all(map(can_be_recorded, trainer.optimizers)):
        logger.debug("Steps are not recorded: Adam is not the fused one.")
    elif not graphs.moves and len(trainer.optimizers) > 1:
        logger.debug("Steps are not recorded: of several losses each begins where the last one led.")
    else:
        compute = _descend if graphs.moves else _slope
        trainer.recorded["train"] = RecordedStage(
            graphs, plan, "train", lambda batch, batch_idx: compute(trainer, batch, batch_idx), trainer.optimizers
        )


def _steps_of(trainer: Run) -> int:
    """Steps of the whole run, 0 where nobody knows."""
    return 0 if trainer.num_training_batches is None else trainer.estimated_stepping_batches


def run_epoch(trainer: Run) -> dict[str, float]:
    """Train one epoch, validate where due, and return the epoch's row of the history."""
    plan = trainer.plan
    if not trainer.batches_done:
        _begin_epoch(trainer)
    if not trainer.epoch_is_trained:
        _train(trainer)
    weight = {} if trainer.epoch_kl_weight is None else {"kl_weight": trainer.epoch_kl_weight}
    trainer.note(_metrics(trainer, "train") | weight)
    validation = _validate(trainer) if trainer.validates_now else {}
    plan.on_train_epoch_end()
    trainer.call("on_train_epoch_end")
    row = {**validation, **_metrics(trainer, "train"), **weight}  # again: hooks may have logged
    trainer.record(row)
    _step_schedulers(trainer, "epoch")
    return row


def _begin_epoch(trainer: Run) -> None:
    plan = trainer.plan
    trainer.epoch_kl_weight = None if plan.kl_weight is None else float(plan.kl_weight)  # as the epoch begins
    plan.train()
    plan.train_epoch_metrics.reset()
    plan.enter_stage("train")
    plan.on_train_epoch_start()
    trainer.call("on_train_epoch_start")


def _train(trainer: Run) -> None:
    """The minibatches of an epoch that are still to do: all of them, unless the run was resumed within it."""
    plan = trainer.plan
    plan.train()
    plan.enter_stage("train")
    trainer.guard.start_epoch()
    _look_at_settings(trainer, "train")
    for batch in itertools.islice(minibatches_of(trainer.train_loader), trainer.batches_left):
        _training_batch(trainer, trainer.to_device(batch), trainer.batches_done)
        del batch  # before the next one is made
        trainer.batches_done += 1
        trainer.checkpointing.batch_done()
        trainer.progress.batch(trainer)
        if 0 < trainer.max_steps <= trainer.global_step:
            break
    if not trainer.batches_done:
        raise ValueError("The training loader gave no minibatch: the training split is empty.")
    if plan.automatic_optimization and trainer.batches_done % trainer.accumulate_grad_batches:
        _move(trainer, trainer.optimizers)  # nothing is left over for the next epoch
        _step_is_done(trainer)
    trainer.epoch_is_trained = True


def _look_at_settings(trainer: Run, stage: str) -> None:
    if stage in trainer.recorded:
        trainer.recorded[stage].look()


def _training_batch(trainer: Run, batch: object, batch_idx: int) -> None:
    between_batches()
    plan, steps_before = trainer.plan, trainer.global_step
    trainer.call("on_train_batch_start", batch, batch_idx)
    if trainer.listens("on_train_batch_start", "on_train_batch_end"):
        _look_at_settings(trainer, "train")
    if plan.automatic_optimization:
        output = _take_steps(trainer, batch, batch_idx)
    else:
        output = plan.training_step(batch, batch_idx)
        trainer.global_step += 1
    trainer.call("on_train_batch_end", output, batch, batch_idx)
    if plan.step_values and trainer.global_step > steps_before:
        trainer.record_step(plan.step_values)
        plan.step_values = {}


def _take_steps(trainer: Run, batch: object, batch_idx: int) -> dict[str, Any] | None:
    """Go down each loss of a minibatch; what callbacks get is of the first."""
    recorded = trainer.recorded.get("train")
    if recorded is None:
        steps = _descend(trainer, batch, batch_idx, is_checked=True)
    else:
        steps = recorded(batch, batch_idx)
        for step in steps:  # the guard waits for the loss, so on an accelerator it looks afterwards
            _check(trainer, step, batch, batch_idx)
        if not recorded.moves:
            _move(trainer, trainer.optimizers)
        steps = [replace(step, loss=step.loss.clone()) for step in steps[:1]]  # the next minibatch overwrites it
    if not steps:
        return None
    if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
        _step_is_done(trainer)
    first = steps[0]
    return {**(first.output if isinstance(first.output, Mapping) else {}), "loss": first.loss}


def _descend(trainer: Run, batch: object, batch_idx: int, is_checked: bool = False) -> list[Step]:
    """Go down each loss of a minibatch; the steps that were gone, without their graphs."""
    steps = []
    for step in trainer.plan.steps(batch, batch_idx):
        if is_checked:
            _check(trainer, step, batch, batch_idx)
        _backward(trainer, step)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            _move(trainer, trainer.optimizers if step.optimizer is None else [trainer.optimizers[step.optimizer]])
        steps.append(replace(step, loss=step.loss.detach()))
    return steps


def _slope(trainer: Run, batch: object, batch_idx: int) -> list[Step]:
    """The gradients of a minibatch's only loss; the step that is to be gone, without its graph."""
    steps = list(trainer.plan.steps(batch, batch_idx))
    for step in steps:
        _backward(trainer, step)
    return [replace(step, loss=step.loss.detach()) for step in steps]


def _check(trainer: Run, step: Step, batch: object, batch_idx: int) -> None:
    where = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
    rows = trainer.train_loader.last_indices
    trainer.guard.check(step.loss, step.record, batch, batch_idx, rows, where)


def _backward(trainer: Run, step: Step) -> None:
    loss, accumulate = step.loss, trainer.accumulate_grad_batches
    trainer.call("on_before_backward", loss)
    # Processes average their gradients; where they have unlike shares of a minibatch, so must their weights be.
    weight = trainer.train_loader.last_weight
    loss = loss if weight == 1.0 else loss * weight
    if loss.requires_grad:
        only = {} if step.optimizer is None else {"inputs": parameters_of(trainer.optimizers[step.optimizer])}
        trainer.engine.backward(loss / accumulate if accumulate > 1 else loss, **only)
    elif not trainer.global_step:  # a query model of which everything is frozen
        logger.warning("Training changes nothing: the loss depends on no parameter that may move.")
    trainer.call("on_after_backward")


def _move(trainer: Run, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    for optimizer in optimizers:
        trainer.engine.average_gradients(parameters_of(optimizer))
        _clip(trainer, optimizer)
        trainer.call("on_before_optimizer_step", optimizer)
        with drawing_of(trainer.engine.given(optimizer)):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _step_is_done(trainer: Run) -> None:
    trainer.global_step += 1
    _step_schedulers(trainer, "step")


def _clip(trainer: Run, optimizer: torch.optim.Optimizer) -> None:
    if trainer.gradient_clip_val is None:
        return
    parameters = parameters_of(optimizer)
    if trainer.gradient_clip_algorithm == "norm":
        torch.nn.utils.clip_grad_norm_(parameters, trainer.gradient_clip_val)
    else:
        torch.nn.utils.clip_grad_value_(parameters, trainer.gradient_clip_val)


def _step_schedulers(trainer: Run, interval: str) -> None:
    for link in trainer.lr_links:
        if link.interval == interval and not _waits_for_validation(trainer, link):
            link.step(trainer.callback_metrics)


def _waits_for_validation(trainer: Run, link: SchedulerLink) -> bool:
    by_validation = link.monitor is not None and "validation" in link.monitor and trainer.val_loader is not None
    return by_validation and not trainer.validates_now


def _validation_batch(trainer: Run, batch: object, batch_idx: int) -> None:
    between_batches()
    trainer.call("on_validation_batch_start", batch, batch_idx)
    output = trainer.recorded.get("validation", trainer.plan.validation_step)(batch, batch_idx)
    trainer.record_validation_step()
    trainer.call("on_validation_batch_end", output, batch, batch_idx)
    trainer.checkpointing.validation_batch_done()


@torch.no_grad()
def _validate(trainer: Run) -> dict[str, float]:
    plan, loader = trainer.plan, trainer.val_loader
    assert loader is not None
    trainer.checkpointing.validation_begins()
    trainer.engine.agree_on_buffers(trainer.raw_module)
    plan.eval()
    plan.validation_epoch_metrics.reset()
    plan.enter_stage("validation")
    trainer.call("on_validation_start")
    plan.on_validation_epoch_start()
    trainer.call("on_validation_epoch_start")
    _look_at_settings(trainer, "validation")
    batches = itertools.islice(minibatches_of(loader), batches_in(loader, trainer.limit_val_batches))
    numbers = itertools.count()
    for batch in batches:
        _validation_batch(trainer, trainer.to_device(batch), next(numbers))
        del batch  # before the next one is made
    metrics = _metrics(trainer, "validation")
    trainer.note(metrics)
    trainer.last_validated_epoch = trainer.current_epoch
    plan.on_validation_epoch_end()
    trainer.call("on_validation_epoch_end")
    trainer.call("on_validation_end")
    metrics = _metrics(trainer, "validation")
    plan.enter_stage("train")
    trainer.checkpointing.validation_done()
    elbo = metrics.get("elbo_validation")
    trainer.guard.check_validation(None if elbo is None else float(elbo), f"epoch {trainer.current_epoch}")
    return metrics


def _metrics(trainer: Run, split: str) -> dict[str, float]:
    plan = trainer.plan
    if split == "train":
        return plan.train_epoch_metrics.compute(plan.n_obs_training, trainer.engine.gather)
    return plan.validation_epoch_metrics.compute(plan.n_obs_validation, trainer.engine.gather)
