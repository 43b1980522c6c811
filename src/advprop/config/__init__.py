"""The configuration of a run, stored in `config.json` and changed by `--set`."""

from advprop.config.run import RunConfig as RunConfig
