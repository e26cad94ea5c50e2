"""`python -m jaxrl_surrogate` is the `jaxrl` program."""

import sys

from jaxrl_surrogate.cli import main

sys.exit(main())
