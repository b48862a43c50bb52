"""The plugins, one file each; `core.scheduler.registry` lists them."""
