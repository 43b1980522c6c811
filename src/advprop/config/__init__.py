"""A run as data: what `config.json` holds, what `--set` changes, and what it builds."""

from advprop.config.run import RunConfig as RunConfig
