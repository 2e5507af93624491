"""What the command line can do, without its words: one module per thing a person asks for. A console reads the same.

Rooms, from the top. One imports those further down, never a neighbour; import-linter holds that.

    compare       which version, or which policy, is better
    data          what goes into topics, and what is in them
    start         before anything runs
    watch         how what runs is doing now

    changes       asked of the leader
    dead_letters  parked, and sent again
    runs          trainings, one by one

    scores        of any rows by any version

    versions      what is on record of versions and runs, and who served what

    written.py    numbers in words, for all
"""
