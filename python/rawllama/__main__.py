"""`python -m rawllama`: the command `rawllama`."""

from .cli import main

raise SystemExit(main())
