"""Fixtures of tiny training runs, for protocols that evaluate checkpoints."""

from fixtures.training_runs import cache as cache
from fixtures.training_runs import cohort as cohort
from fixtures.training_runs import finetune_args as finetune_args
from fixtures.training_runs import module_finetune_args as module_finetune_args
from fixtures.training_runs import pretrain_args as pretrain_args
