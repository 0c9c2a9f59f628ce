"""Fixtures of tiny training runs."""

from fixtures.training_runs import cache as cache
from fixtures.training_runs import cohort as cohort
from fixtures.training_runs import encoder as encoder
from fixtures.training_runs import finetune_args as finetune_args
from fixtures.training_runs import module_finetune_args as module_finetune_args
from fixtures.training_runs import no_outcomes as no_outcomes
from fixtures.training_runs import pretrain_args as pretrain_args
from fixtures.training_runs import probe_args as probe_args
from fixtures.training_runs import unused_port as unused_port
