"""Commands of the `jaxrl` program that need a run's config, one file each."""
