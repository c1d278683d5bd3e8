"""`python -m epg`."""

from epg.cli import main

main()
